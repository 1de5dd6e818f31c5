"""What the server makes of requests that are wrong, unknown, too large or too many."""

from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tacit.checkpoints import CheckpointStore
from tacit.database import Database
from tests.deploy.serving import MESSAGES, PROMPT, serving


def test_an_unknown_model_is_not_found(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    with serving(sqlite_database, store, tmp_path) as server:
        for model in ("gpt-9", "default2", "", "other@0123"):
            with pytest.raises(openai.NotFoundError) as error:
                server.ask(model=model)
            assert error.value.code == "model_not_found"
            assert error.value.param == "model"
        assert httpx.get(f"{server.url}/v1/nowhere").json()["error"]["code"] == "not_found"


def _asking(**changed: Any) -> dict[str, Any]:
    return {"model": "default", "messages": MESSAGES, **changed}


_BAD: list[tuple[Any, str]] = [
    (b"{", "JSON in the request's body"),
    (b"\xff", "JSON in the request's body"),
    (b"[" * 100_000, "JSON in the request's body"),
    ([], "a chat completion request"),
    ({"messages": MESSAGES}, "model"),
    ({"model": "default"}, "messages"),
    (_asking(messages=[]), "messages"),
    (_asking(messages=[{"role": "user", "content": "a\x00b"}]), "messages of text"),
    (_asking(messages=[{"role": "user", "content": [{"type": "image_url"}]}]), "type"),
    (_asking(messages=[{"role": "robot", "content": "x"}]), "role"),
    (_asking(messages=[{"role": "user", "content": "\ud800"}]), "content"),
    (_asking(temperature=-1), "temperature"),
    (_asking(temperature=float("nan")), "temperature"),
    (_asking(top_p=0), "top_p"),
    (_asking(max_tokens=0), "max_tokens"),
    (_asking(max_tokens=100_000), "max_tokens of at most 256"),
    (_asking(max_tokens=256), "at most 256 tokens together"),
    (_asking(n=17), "n of at most 16"),
    (_asking(stop=""), "stop"),
    (_asking(user="someone@example.com"), "user"),
    (_asking(tools=[{}]), "tools"),
    (_asking(frequency_penalty=0.5), "frequency_penalty"),
    (_asking(top_logprobs=3), "expected logprobs to be true"),
    (_asking(logprobs=True, top_logprobs=21), "top_logprobs"),
    (_asking(top_k=3), "top_k"),
]


def test_bad_requests_are_told_what_is_wrong(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    with serving(sqlite_database, store, tmp_path) as server:
        for body, says in _BAD:
            answer = server.post(body)
            error = answer.json()["error"]
            assert answer.status_code == 422, (body, error)
            assert says in error["message"], (body, error)
            assert error["type"] == "invalid_request_error"
        assert server.ask().choices[0].message.content
    assert len(server.recorded) == 1


def test_neutral_and_irrelevant_parameters_are_let_pass(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    with serving(sqlite_database, store, tmp_path) as server:
        answer = server.ask(
            messages=[
                {"role": "developer", "content": "be brief"},
                {"role": "user", "content": [{"type": "text", "text": PROMPT}]},
            ],
            frequency_penalty=0,
            response_format={"type": "text"},
            store=False,
            tools=[],
            stop=None,
        )
    assert answer.choices[0].message.content
    assert [m.role for m in server.recorded[0].prompt] == ["system", "user"]
    assert server.recorded[0].prompt[1].content == PROMPT


def test_a_request_that_is_too_large_is_refused_unread(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    with serving(sqlite_database, store, tmp_path, variant=None, max_request_bytes=1_000) as server:
        answer = server.post({"model": "default", "messages": "x" * 2_000})
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"


def test_a_full_queue_says_when_to_try_again(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    with serving(sqlite_database, store, tmp_path, max_queue=2) as server:
        with pytest.raises(openai.RateLimitError, match="at most 2 waiting requests") as error:
            server.ask(n=3)
        assert error.value.response.headers["Retry-After"] == "1"
        assert error.value.code == "queue_full"
        assert server.ask(n=2).choices[1].message.content
