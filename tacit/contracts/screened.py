"""ScreenedEvent: an event the collector vouches for, joined to its interaction and weighed."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from tacit.contracts.base import Contract, Digest, Name
from tacit.contracts.feedback import FeedbackEvent
from tacit.contracts.interaction import InlineInteraction


class EventStatus(StrEnum):
    """What became of an event. ``queued`` means durable in the stream but not yet screened."""

    QUEUED = "queued"
    HELD = "held"
    ACCEPTED = "accepted"
    HOLDOUT = "holdout"
    QUARANTINED = "quarantined"
    DEAD_LETTER = "dead_letter"
    ERASED = "erased"


class ScreenedEvent(Contract):
    """An accepted or held-out event as it goes to the trainer or into a harvested suite."""

    event_key: str
    """``source/event_id``."""
    policy: Name
    event: FeedbackEvent
    """After redaction."""
    interaction: InlineInteraction
    weight: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Trust weight; multiplies the example's loss."""
    reward: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Of an outcome or a rating: how good the completion was, of which more is better whatever way
    its metric counts. None of what says so in words or by another completion."""
    cluster: str
    """Near-duplicate cluster of the prompt; statistics treat a cluster as one draw."""

    @property
    def event_digest(self) -> Digest:
        """Digest of the redacted event and its interaction: what a batch manifest commits to."""
        return self.digest()
