"""What the review pages ask of stages the gatekeeper may not import; the service hands it in.

Reading feedback and ruling on the quarantine is one desk, looking at releases and rolling back the
other. Both act in the name of the principal or person they are given.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol

from tacit.contracts import EventStatus, FeedbackEvent, InlineInteraction, Release, RolloutStatus
from tacit.keys import Principal

Verb = Literal["release", "drop"]


@dataclass(frozen=True)
class FeedbackQuery:
    """Which events a person looks for; None is any."""

    text: str | None = None
    status: EventStatus | None = None
    reason: str | None = None
    kind: str | None = None
    source: str | None = None
    subject: str | None = None
    after: str | None = None
    """``next`` of the page before."""
    hidden: frozenset[EventStatus] = frozenset()
    """Statuses that whoever asks may not see."""


@dataclass(frozen=True)
class EventView:
    """One screened event as it stands now."""

    event: FeedbackEvent
    interaction: InlineInteraction | None
    """None while it was not joined."""
    status: EventStatus
    reason: str | None
    detail: str | None
    trust: float
    weight: float
    cluster: str
    batch_id: str | None
    received_at: datetime

    @property
    def key(self) -> str:
        """``source/event_id``."""
        return self.event.event_key


class EventPage(NamedTuple):
    """A page of a search."""

    events: list[EventView]
    next: str | None
    """Where the next page begins; None on the last."""


class Screened(NamedTuple):
    """What was screened while a batch came together."""

    num_events: int
    num_quarantined: int
    """By screening; those that were set aside after training do not count."""


class EventRuling(NamedTuple):
    """What a decision did with one event."""

    event_key: str
    status: str
    refusal: str | None


class FeedbackDesk(Protocol):
    """The feedback of one policy line."""

    def counts(self, *, source: str | None) -> Mapping[EventStatus, int]:
        """Number of events by status."""
        ...

    def reasons(self, *, source: str | None) -> Mapping[str, int]:
        """Number of quarantined events by reason."""
        ...

    def search(self, wanted: FeedbackQuery) -> EventPage:
        """Events that fit, newest first. Raises InvalidInputError on a bad ``after``."""
        ...

    def event(self, event_key: str) -> EventView:
        """One event. Raises NotFoundError."""
        ...

    def screened_with(self, batch_id: str) -> Screened:
        """What was screened from the first to the last event of a batch."""
        ...

    def carried_by(self, batch_id: str) -> Mapping[str, Any]:
        """``{"candidates": [...], "releases": [...]}`` that learned from a batch."""
        ...

    def rule(
        self, verb: Verb, event_keys: Sequence[str], *, by: Principal, why: str
    ) -> Sequence[EventRuling]:
        """Release quarantined events or drop them for good. Raises NotAllowedError."""
        ...


class Replica(NamedTuple):
    """What one serving replica runs."""

    replica_id: str
    serving: str | None
    """``release_id``."""
    refused: str | None
    refusal: str | None
    canary: str | None
    """``release_id`` that stands beside the one it serves."""
    canary_share: float | None
    """Of the subjects, whom that one answers."""
    seen_at: datetime
    alive: bool


class ReleaseControl(Protocol):
    """The releases of one policy line."""

    def releases(self) -> Sequence[Release]:
        """All of them, newest first."""
        ...

    def replicas(self) -> Sequence[Replica]:
        """What each serving replica runs."""
        ...

    def before(self) -> Release | None:
        """The release a rollback goes back to, if there is one."""
        ...

    def rollout(self) -> RolloutStatus | None:
        """The rollout under way. Raises ConflictError if it makes no sense."""
        ...

    def go_full(self, release_id: str, *, by: str, reason: str) -> None:
        """Let a release answer all requests at once. Raises NotFoundError, ConflictError."""
        ...

    def roll_back(self, *, to: str, by: str, reason: str) -> Release:
        """Serve an earlier release's weights again. Raises NotFoundError, ConflictError."""
        ...
