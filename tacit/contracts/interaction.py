"""What a policy was asked and what it answered: the thing feedback is about."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from tacit.contracts.base import Contract, Digest, Identifier, Name, Part, Text, UtcDatetime

PolicyVersion = Annotated[str, StringConstraints(max_length=200)]
"""``policy@digest12`` as serving answers it in ``model``."""


TokenId = Annotated[int, Field(ge=0, lt=2**31)]
"""Place of a token in a vocabulary."""


class Message(Part):
    """One chat message."""

    role: Literal["system", "user", "assistant", "tool"]
    content: Text


class SamplingParameters(Part):
    """How the completion was sampled; needed to reuse its logprobs off-policy."""

    temperature: Annotated[float, Field(ge=0, le=10)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    seed: int | None = None


class InlineInteraction(Part):
    """An interaction as a product sends it inside a feedback event."""

    prompt: Annotated[tuple[Message, ...], Field(min_length=1, max_length=1_000)]
    completion: Text
    policy_version: PolicyVersion | None = None
    completion_ids: tuple[TokenId, ...] | None = None
    """Token ids of the completion, as many as ``logprobs``."""
    logprobs: tuple[float, ...] | None = None
    """Natural-log probability of each completion token under the policy that sampled it."""
    sampling: SamplingParameters | None = None

    @model_validator(mode="after")
    def _same_length(self) -> "InlineInteraction":
        ids, logprobs = self.completion_ids, self.logprobs
        if ids is not None and logprobs is not None and len(ids) != len(logprobs):
            raise ValueError(
                f"expected one logprob per completion token; got {len(ids)} ids and "
                f"{len(logprobs)} logprobs"
            )
        return self


class Interaction(Contract, InlineInteraction):
    """An interaction as serving records it; ``interaction_id`` is the id of the answer."""

    interaction_id: Identifier
    policy: Name
    source: Name
    subject_id: Identifier | None = None
    episode_id: Identifier | None = None
    occurred_at: UtcDatetime
    template_digest: Digest | None = None
    """Of the chat template that turned the prompt into tokens."""
    arm: Name | None = None
    """Which of the policies that shared the traffic answered, such as ``champion``."""
    arm_probability: Annotated[float, Field(gt=0, le=1)] | None = None
    """With which that arm was drawn for this request."""
