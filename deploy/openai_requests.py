"""Chat completion requests in OpenAI's form, and what of it Tacit takes.

What would change the answer and is not implemented is refused by name; what has no bearing on the
answer is let pass. Silence would mean logprobs that belong to another distribution.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from deploy.engines.base import GenerationRequest
from tacit.config import Settings
from tacit.contracts import Message, SamplingParameters
from tacit.contracts.base import Identifier
from tacit.errors import InvalidInputError, NotFoundError

_WITHOUT_BEARING = {
    "parallel_tool_calls",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "store",
}
_ONLY_NEUTRAL: dict[str, tuple[object, ...]] = {
    "frequency_penalty": (0, None),
    "presence_penalty": (0, None),
    "top_logprobs": (0, None),
    "logit_bias": (None, {}),
    "response_format": (None, {"type": "text"}),
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),
    "modalities": (None, ["text"]),
}


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TextPart(_Asked):
    """A part of a message's content; only text is taken."""

    type: Literal["text"]
    text: str


class AskedMessage(_Asked):
    """One message as OpenAI's clients send it."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart]
    name: str | None = None
    tool_call_id: str | None = None

    def message(self) -> Message:
        """As the policy is asked. Raises ValidationError on NUL and over-long text."""
        content = self.content
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        role = "system" if self.role == "developer" else self.role
        return Message(role=role, content=text)


class StreamOptions(_Asked):
    """Options of a streamed answer."""

    include_usage: bool = False
    include_obfuscation: bool = False


class Metadata(BaseModel):
    """OpenAI lets a caller add pairs; ``episode_id`` is kept with the interaction."""

    model_config = ConfigDict(extra="allow", frozen=True)
    episode_id: Identifier | None = None


class ChatRequest(_Asked):
    """The body of ``POST /v1/chat/completions``."""

    model: str
    messages: Annotated[list[AskedMessage], Field(min_length=1, max_length=1_000)]
    n: Annotated[int, Field(ge=1)] = 1
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(max_length=16)] = ()
    seed: int | None = None
    logprobs: bool = False
    user: Identifier | None = None
    metadata: Metadata = Metadata()

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_more(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _only_what_is_implemented(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        for name, neutral in _ONLY_NEUTRAL.items():
            if name in body and body[name] not in neutral:
                raise ValueError(f"{name}: expected it unset; it is not implemented here")
        # OpenAI's clients send null for "not given".
        passed = {k: v for k, v in body.items() if v is not None}
        return {k: v for k, v in passed.items() if k not in _WITHOUT_BEARING | set(_ONLY_NEUTRAL)}

    def sampling(self, settings: Settings, *, choice: int = 0) -> SamplingParameters:
        """How choice number ``choice`` is sampled; each has a seed of its own."""
        limit = settings.deploy.max_new_tokens
        temperature = self.temperature
        return SamplingParameters(
            temperature=settings.deploy.default_temperature if temperature is None else temperature,
            top_p=self.top_p,
            max_tokens=self.asked_tokens or limit,
            seed=None if self.seed is None else self.seed + choice,
        )

    @property
    def asked_tokens(self) -> int | None:
        """``max_completion_tokens``, or under its older name ``max_tokens``."""
        return self.max_completion_tokens or self.max_tokens

    def prompt(self) -> tuple[Message, ...]:
        """The messages as the policy is asked. Raises InvalidInputError."""
        try:
            return tuple(message.message() for message in self.messages)
        except ValidationError as error:
            raise InvalidInputError.of_fields(error.errors(), what="messages of text") from error

    def generations(self, settings: Settings) -> list[GenerationRequest]:
        """One request to the engine for each choice. Raises InvalidInputError."""
        prompt = self.prompt()
        return [
            GenerationRequest(
                prompt=prompt,
                sampling=self.sampling(settings, choice=choice),
                stop=self.stop,
                fit_context=self.asked_tokens is None,
                with_pieces=self.logprobs,
            )
            for choice in range(self.n)
        ]


def parse_chat_request(body: bytes, settings: Settings) -> ChatRequest:
    """The request in ``body``, within the limits of ``settings``.

    Raises InvalidInputError naming the field, NotFoundError on a model that is not served here.
    """
    try:
        request = ChatRequest.model_validate(json.loads(body))
    except ValidationError as error:
        raise InvalidInputError.of_fields(
            error.errors(), what="a chat completion request"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InvalidInputError("JSON in the request's body", got=str(error)) from error
    _check_model(request.model, settings.policy)
    _check_limit("max_tokens", request.asked_tokens, settings.deploy.max_new_tokens)
    _check_limit("n", request.n, settings.deploy.max_choices)
    return request


def _check_model(model: str, policy: str) -> None:
    if model != policy and not model.startswith(f"{policy}@"):
        raise NotFoundError(
            f"the model {policy!r} or a version of it",
            got=model[:200],
            mend="GET /v1/models lists what is served.",
        )


def _check_limit(name: str, asked: int | None, limit: int) -> None:
    if asked is not None and asked > limit:
        raise InvalidInputError(f"{name} of at most {limit}", got=str(asked))
