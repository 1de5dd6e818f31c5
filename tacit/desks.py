"""The desks of the review pages, opened on the stages that the gatekeeper may not import."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from collector.store import EventStore
from collector.tables import EventRow
from collector.triage.quarantine import Cursor, Journal, Quarantine
from collector.triage.search import EventFilter, EventSearch
from deploy.api import OnRollback, roll_back_with
from deploy.history import read_release, release_before, top_release
from deploy.release import ReleaseDesk
from deploy.rollout import RolloutDesk
from deploy.rollout_status import rollout_status
from gatekeeper.desks import (
    EventPage,
    EventRuling,
    EventView,
    FeedbackQuery,
    Replica,
    Screened,
    Verb,
)
from tacit.config import Settings
from tacit.contracts import (
    EventStatus,
    FeedbackEvent,
    InlineInteraction,
    Release,
    RolloutStatus,
    utc_now,
)
from tacit.database import Database
from tacit.errors import ConflictError, NotFoundError
from tacit.keys import Principal
from tacit.lineage import FeedbackLineage

PAGE_SIZE = 50
_MISSED_HEARTBEATS = 3


class StoredFeedback:
    """The feedback of one policy line; a ``gatekeeper.desks.FeedbackDesk``."""

    def __init__(
        self, settings: Settings, database: Database, *, journal: Journal, lineage: FeedbackLineage
    ) -> None:
        self._policy = settings.policy
        self._store = EventStore(database)
        self._search = EventSearch(database, settings.policy)
        self._quarantine = Quarantine(database, settings, journal)
        self._lineage = lineage

    def counts(self, *, source: str | None) -> Mapping[EventStatus, int]:
        """Number of events by status."""
        return self._store.counts(self._policy, source=source)

    def reasons(self, *, source: str | None) -> Mapping[str, int]:
        """Number of quarantined events by reason."""
        return self._store.reasons(self._policy, source=source)

    def search(self, wanted: FeedbackQuery) -> EventPage:
        """Events that fit, newest first. Raises InvalidInputError on a bad ``after``."""
        chosen = EventFilter(
            text=wanted.text,
            status=wanted.status,
            reason=wanted.reason,
            kind=wanted.kind,
            source=wanted.source,
            subject=wanted.subject,
            hidden=wanted.hidden,
        )
        after = None if wanted.after is None else Cursor.parse(wanted.after)
        rows = self._search.page(chosen, after=after, limit=PAGE_SIZE + 1)
        shown = rows[:PAGE_SIZE]
        more = len(rows) > PAGE_SIZE
        following = str(Cursor(shown[-1].sequence, shown[-1].event_key)) if more else None
        return EventPage([_view(row) for row in shown], following)

    def event(self, event_key: str) -> EventView:
        """One event. Raises NotFoundError."""
        row = self._search.get(event_key)
        if row is None:
            raise NotFoundError("an event of this policy line that was screened", got=event_key)
        return _view(row)

    def screened_with(self, batch_id: str) -> Screened:
        """What was screened from the first to the last event of a batch."""
        return Screened(*self._search.beside(batch_id))

    def carried_by(self, batch_id: str) -> Mapping[str, Any]:
        """``{"candidates": [...], "releases": [...]}`` that learned from a batch."""
        return self._lineage.of(batch_id)

    def rule(
        self, verb: Verb, event_keys: Sequence[str], *, by: Principal, why: str
    ) -> Sequence[EventRuling]:
        """Release quarantined events or drop them for good. Raises NotAllowedError."""
        rulings = self._quarantine.decide(verb, event_keys, by=by, why=why)
        return [EventRuling(*ruling) for ruling in rulings]


class StoredReleases:
    """The releases of one policy line; a ``gatekeeper.desks.ReleaseControl``."""

    def __init__(
        self,
        settings: Settings,
        desk: ReleaseDesk,
        rollouts: RolloutDesk,
        on_rollback: OnRollback,
    ) -> None:
        self._policy = settings.policy
        self._stages = settings.deploy.rollout
        self._rollouts = rollouts
        self._alive = timedelta(seconds=_MISSED_HEARTBEATS * settings.deploy.heartbeat_s)
        self._desk = desk
        self._on_rollback = on_rollback

    def releases(self) -> Sequence[Release]:
        """All of them, newest first."""
        return self._desk.history(self._policy)

    def replicas(self) -> Sequence[Replica]:
        """What each serving replica runs; one that has been silent for long is not alive."""
        now = utc_now()
        return [
            Replica(
                replica_id=row.replica_id,
                serving=row.serving,
                refused=row.refused,
                refusal=row.refusal,
                canary=row.canary,
                canary_share=row.canary_share,
                seen_at=row.seen_at,
                alive=now - row.seen_at < self._alive,
            )
            for row in self._desk.replicas(self._policy)
        ]

    def before(self) -> Release | None:
        """The release a rollback goes back to, if there is one."""
        with self._desk.database.reader() as session:
            top = top_release(session, self._policy)
            if top is None:
                return None
            try:
                return read_release(release_before(session, top))
            except ConflictError:
                return None

    def rollout(self) -> RolloutStatus | None:
        """The rollout under way. Raises ConflictError if it makes no sense."""
        return rollout_status(self._rollouts, self._policy, self._stages)

    def go_full(self, release_id: str, *, by: str, reason: str) -> None:
        """Let a release answer all requests at once. Raises NotFoundError, ConflictError."""
        self._rollouts.finish(self._policy, by=by, reason=reason, seen=release_id)

    def roll_back(self, *, to: str, by: str, reason: str) -> Release:
        """Serve an earlier release's weights again. Raises NotFoundError, ConflictError."""
        release, _ = roll_back_with(
            self._desk, self._policy, to=to, by=by, reason=reason, on_rollback=self._on_rollback
        )
        return release


def _view(row: EventRow) -> EventView:
    joined = row.interaction
    return EventView(
        event=FeedbackEvent.model_validate_json(row.payload),
        interaction=None if joined is None else InlineInteraction.model_validate_json(joined),
        status=EventStatus(row.status),
        reason=row.reason,
        detail=row.detail,
        trust=row.trust,
        weight=row.weight,
        cluster=row.cluster,
        batch_id=row.batch_id,
        received_at=row.received_at,
    )
