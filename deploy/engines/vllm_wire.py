"""vLLM's completions as they go over the wire: token ids in, token ids and logprobs out."""

import json
from collections.abc import Iterator
from typing import Any

import httpx

from deploy.engines.base import TopToken
from deploy.engines.row import Row
from tacit.errors import ConfigError, UnavailableError

MEND = "docs/how-to/serve-with-vllm.md shows how to start the server."
_TOKEN_ID = "token_id:"


def request_body(row: Row, name: str) -> dict[str, Any]:
    """A streamed completion of the tokens of ``row`` by the model called ``name``."""
    sampling = row.request.sampling
    return {
        "model": name,
        "prompt": row.prompt_ids,
        "max_tokens": row.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
        "logprobs": row.request.top_logprobs,
        "return_tokens_as_token_ids": True,
        "stream": True,
    }


def choices_of(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """The choices of a stream as they come. Raises UnavailableError on an error among them."""
    for line in response.iter_lines():
        data = line.removeprefix("data: ")
        if data == line or data == "[DONE]":
            continue
        event = json.loads(data)
        if "error" in event:
            raise UnavailableError("a completion of vLLM", got=str(event["error"])[:500])
        yield from event.get("choices", ())


def push_choice(row: Row, choice: dict[str, Any]) -> None:
    """Push the tokens of ``choice`` into ``row`` until it is done."""
    logprobs = choice.get("logprobs") or {}
    tokens = logprobs.get("tokens") or ()
    tops = logprobs.get("top_logprobs") or [None] * len(tokens)
    for token, logprob, top in zip(tokens, logprobs.get("token_logprobs") or (), tops, strict=True):
        if not row.done:
            likeliest = sorted((top or {}).items(), key=lambda item: -item[1])
            found = tuple(TopToken(_id_of(name), value) for name, value in likeliest)
            row.push(_id_of(token), logprob, found[: row.request.top_logprobs])


def _id_of(token: str) -> int:
    return int(token.removeprefix(_TOKEN_ID))


def require_success(response: httpx.Response) -> None:
    """Raises UnavailableError or ConfigError with what vLLM said, unless it is a success."""
    if response.is_success:
        return
    got = f"{response.status_code} of {response.url.path}: {response.text[:500]}"
    if response.is_server_error:
        raise UnavailableError("an answer of vLLM", got=got, mend=MEND)
    raise ConfigError("an answer of vLLM", got=got, mend=MEND)


def unavailable(error: httpx.HTTPError) -> UnavailableError:
    """What to raise where vLLM cannot be reached."""
    return UnavailableError("a vLLM server", got=f"{type(error).__name__}: {error}", mend=MEND)
