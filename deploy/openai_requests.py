"""The bodies of ``POST /v1/chat/completions`` and ``POST /v1/completions``."""

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from deploy.engines.base import GenerationRequest
from deploy.openai_fields import Asked, SampledRequest
from tacit.config import Settings
from tacit.contracts import Message
from tacit.contracts.base import Identifier
from tacit.errors import InvalidInputError

MAX_TOP_LOGPROBS = 20
_DEFAULT_TEXT_TOKENS = 16
"""As in OpenAI's API."""


class TextPart(Asked):
    """A part of a message's content; only text is taken."""

    type: Literal["text"]
    text: str


class AskedMessage(Asked):
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


class Metadata(BaseModel):
    """OpenAI lets a caller add pairs; ``episode_id`` is kept with the interaction."""

    model_config = ConfigDict(extra="allow", frozen=True)
    episode_id: Identifier | None = None


class ChatRequest(SampledRequest):
    """The body of ``POST /v1/chat/completions``."""

    what: ClassVar[str] = "a chat completion request"
    only_neutral: ClassVar[dict[str, tuple[object, ...]]] = {
        **SampledRequest.only_neutral,
        "response_format": (None, {"type": "text"}),
        "tools": (None, []),
        "tool_choice": (None, "none", "auto"),
        "modalities": (None, ["text"]),
    }

    messages: Annotated[list[AskedMessage], Field(min_length=1, max_length=1_000)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] = 0
    metadata: Metadata = Metadata()

    @model_validator(mode="after")
    def _top_of_what(self) -> "ChatRequest":
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs: expected logprobs to be true beside it")
        return self

    @property
    def asked_tokens(self) -> int | None:
        """``max_completion_tokens``, or under its older name ``max_tokens``."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def episode(self) -> str | None:
        """``metadata.episode_id``."""
        return self.metadata.episode_id

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
                top_logprobs=self.top_logprobs,
            )
            for choice in range(self.n)
        ]


class TextRequest(SampledRequest):
    """The body of ``POST /v1/completions``."""

    what: ClassVar[str] = "a text completion request"
    only_neutral: ClassVar[dict[str, tuple[object, ...]]] = {
        **SampledRequest.only_neutral,
        "best_of": (None, 1),
        "echo": (None, False),
        "suffix": (None, ""),
    }

    prompt: Annotated[tuple[str, ...], Field(min_length=1)]
    logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None

    @field_validator("prompt", mode="before")
    @classmethod
    def _one_or_more_prompts(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @property
    def asked_tokens(self) -> int:
        """``max_tokens``."""
        return self.max_tokens or _DEFAULT_TEXT_TOKENS

    @property
    def num_choices(self) -> int:
        """``n`` for each prompt."""
        return self.n * len(self.prompt)

    def generations(self, settings: Settings) -> list[GenerationRequest]:
        """One request to the engine for each choice, those of the first prompt first."""
        return [
            GenerationRequest(
                prompt=prompt,
                sampling=self.sampling(settings, choice=choice),
                stop=self.stop,
                with_pieces=self.logprobs is not None,
                top_logprobs=self.logprobs or 0,
            )
            for prompt in self.prompt
            for choice in range(self.n)
        ]
