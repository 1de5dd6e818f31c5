"""SealedBatch: the manifest of what one update learns from. Order matters and is fixed here."""

from typing import Annotated, Literal

from pydantic import Field

from tacit.contracts.base import Contract, Digest, Name, Part, UtcDatetime, short
from tacit.contracts.interaction import Message

ReplayOrigin = Literal["anchor", "accepted", "on_policy"]
"""``anchor``: from the user's anchor prompts. ``accepted``: an earlier batch's event.
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


class SealedBatch(Contract):
    """Ordered events and replay sample of one update; nothing can be added or taken out."""

    policy: Name
    parent: Digest
    """Checkpoint the update starts from."""
    entries: Annotated[tuple[BatchEntry, ...], Field(min_length=1)]
    replay: tuple[Digest, ...]
    """Digests of the replay examples, in order."""
    merkle_root: Digest
    """RFC 6962 root over the digests of the events, in order."""
    watermark: dict[str, int]
    """Stream position at sealing: ``topic/partition`` to the last offset screened."""
    sealed_at: UtcDatetime

    @property
    def batch_id(self) -> str:
        """``b-`` and the first 12 hex digits of the digest."""
        return f"b-{short(self.digest())}"
