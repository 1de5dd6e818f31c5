"""What all requests in OpenAI's form have in common, and what of it Tacit takes.

What would change the answer and is not implemented is refused by name; what has no bearing on the
answer is let pass. Silence would mean logprobs that belong to another distribution.
"""

import json
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tacit.config import Settings
from tacit.contracts import SamplingParameters
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


class Asked(BaseModel):
    """Base of what callers send."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class StreamOptions(Asked):
    """Options of a streamed answer."""

    include_usage: bool = False
    include_obfuscation: bool = False


class SampledRequest(Asked):
    """A request for one or more sampled completions."""

    what: ClassVar[str]
    """What it is, for error messages."""
    only_neutral: ClassVar[dict[str, tuple[object, ...]]] = {
        "frequency_penalty": (0, None),
        "presence_penalty": (0, None),
        "logit_bias": (None, {}),
    }
    """Not implemented: taken with a value that changes nothing, refused with any other."""

    model: str
    n: Annotated[int, Field(ge=1)] = 1
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(max_length=16)] = ()
    seed: int | None = None
    user: Identifier | None = None

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_more(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _only_what_is_implemented(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        for name, neutral in cls.only_neutral.items():
            if name in body and body[name] not in neutral:
                raise ValueError(f"{name}: expected it unset; it is not implemented here")
        # OpenAI's clients send null for "not given".
        passed = {k: v for k, v in body.items() if v is not None}
        return {
            k: v for k, v in passed.items() if k not in _WITHOUT_BEARING | set(cls.only_neutral)
        }

    @property
    def asked_tokens(self) -> int | None:
        """The most tokens of a completion, if the caller said so."""
        return self.max_tokens

    @property
    def num_choices(self) -> int:
        """Completions that are asked for altogether."""
        return self.n

    @property
    def episode(self) -> str | None:
        """The episode that the request is a step of, if the caller said so."""
        return None

    @property
    def wants_usage(self) -> bool:
        """Whether a streamed answer ends with the numbers of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling(self, settings: Settings, *, choice: int = 0) -> SamplingParameters:
        """How choice number ``choice`` is sampled; each has a seed of its own."""
        temperature = self.temperature
        return SamplingParameters(
            temperature=settings.deploy.default_temperature if temperature is None else temperature,
            top_p=self.top_p,
            max_tokens=self.asked_tokens or settings.deploy.max_new_tokens,
            seed=None if self.seed is None else self.seed + choice,
        )


RequestT = TypeVar("RequestT", bound=SampledRequest)


def parse_request(body: bytes, kind: type[RequestT], settings: Settings) -> RequestT:
    """The request in ``body``, within the limits of ``settings``.

    Raises InvalidInputError naming the field, NotFoundError on a model that is not served here.
    """
    try:
        request = kind.model_validate(json.loads(body))
    except ValidationError as error:
        raise InvalidInputError.of_fields(error.errors(), what=kind.what) from error
    except (ValueError, RecursionError) as error:
        raise InvalidInputError("JSON in the request's body", got=str(error)) from error
    _check_model(request.model, settings.policy)
    _check_limit("max_tokens", request.asked_tokens, settings.deploy.max_new_tokens)
    _check_limit("n", request.num_choices, settings.deploy.max_choices)
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
