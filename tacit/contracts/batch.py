"""SealedBatch: the manifest of what one update learns from. Order matters and is fixed here."""

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from tacit.contracts.base import Contract, Digest, Name, Part, UtcDatetime, short
from tacit.contracts.interaction import Message

Purpose = Literal["update", "consolidation"]
"""What a cycle makes a candidate for: to learn from feedback, or to fold adapters."""

ReplayOrigin = Literal["anchor", "accepted", "inferred", "on_policy"]
"""``anchor``: from the user's anchor prompts. ``accepted``: an earlier batch's event.
``inferred``: the prompt of an event that gave no answer, with the answer others predict.
``on_policy``: what the parent itself answers to such a prompt, accepted by a checker."""


class BatchEntry(Part):
    """One feedback event of the batch."""

    event_key: str
    event_digest: Digest
    weight: Annotated[float, Field(ge=0, le=1)]


class ReplayExample(Part):
    """A prompt with a completion known to be good, rehearsed so that it is not forgotten."""

    prompt: Annotated[tuple[Message, ...], Field(min_length=1)]
    completion: str
    origin: ReplayOrigin
    weight: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Trust: that of the event, where an event taught it."""

    @property
    def is_lesson(self) -> bool:
        """Whether feedback taught it: of this prompt, or of others, so that it was inferred."""
        return self.origin in ("accepted", "inferred")

    @model_serializer(mode="wrap")
    def _without_the_usual(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Examples drawn before they had a weight keep their digests.
        tree: dict[str, Any] = serialize(self)
        if tree["weight"] == 1:
            del tree["weight"]
        return tree


class SealedBatch(Contract):
    """What one candidate is made from, in order; nothing can be added or taken out.

    Of an update: its events and replay. Of a consolidation, which folds the parent's adapter into
    the weights under it: no event, and the replay that is distilled on.
    """

    policy: Name
    purpose: Purpose = "update"
    parent: Digest
    """The champion, which the candidate is to follow."""
    start: Digest | None = None
    """Checkpoint that training starts from, where that is not the parent: see RebuildSettings."""
    entries: tuple[BatchEntry, ...]
    replay: tuple[Digest, ...]
    """Digests of the replay examples, in order."""
    merkle_root: Digest
    """RFC 6962 root over the digests of the events, in order."""
    watermark: dict[str, int]
    """Stream position at sealing: ``topic/partition`` to the last offset screened."""
    sealed_at: UtcDatetime

    @model_validator(mode="after")
    def _entries_fit(self) -> "SealedBatch":
        if bool(self.entries) == (self.purpose == "consolidation"):
            raise ValueError(
                f"expected events in an update and none in a consolidation; got {self.purpose} "
                f"with {len(self.entries)}"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_the_usual(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Batches sealed before there was a choice keep their digests.
        tree: dict[str, Any] = serialize(self)
        if tree["purpose"] == "update":
            del tree["purpose"]
        if tree["start"] is None:
            del tree["start"]
        return tree

    @property
    def trained_from(self) -> Digest:
        """The checkpoint whose weights training changes."""
        return self.start or self.parent

    @property
    def batch_id(self) -> str:
        """``b-`` and the first 12 hex digits of the digest."""
        return f"b-{short(self.digest())}"
