"""Held events: how many may wait, and for how long.

What is held costs a row and may never be judged: feedback on invented interactions, answers nobody
else gives. So each subject and each source has room for so many, and waiting ends.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, func, select, update
from sqlalchemy.orm import Session

from collector.positions import lock_screening
from collector.reasons import Reason
from collector.screening.counters import ScreeningCounts
from collector.tables import IS_HELD, EventRow
from tacit.config import ScreeningSettings
from tacit.contracts import EventStatus, FeedbackEvent
from tacit.database import Database

_EXPIRE_CHUNK = 2_000


class HoldLimits:
    """How much room the senders of a chunk have left; used by one thread."""

    def __init__(self, settings: ScreeningSettings, *, policy: str) -> None:
        self._policy = policy
        self._max_of_subject = settings.max_held_events
        self._max_of_source = settings.max_held_events_per_source
        self.begin([])

    def begin(self, events: Sequence[FeedbackEvent]) -> None:
        """Start with a chunk. Counts are read when the first of it is to be held."""
        self._events = events
        self._held: Counter[tuple[str, str | None]] | None = None

    def take(self, session: Session, event: FeedbackEvent) -> bool:
        """Take a place for ``event``; False if its subject or its source has none left."""
        if self._held is None:
            self._held = self._count(session)
        of_subject, of_source = (event.source, event.subject_id), (event.source, None)
        if (
            self._held[of_subject] >= self._max_of_subject
            or self._held[of_source] >= self._max_of_source
        ):
            return False
        self._held[of_subject] += 1
        self._held[of_source] += 1
        return True

    def _count(self, session: Session) -> Counter[tuple[str, str | None]]:
        held: Counter[tuple[str, str | None]] = Counter()
        of_line = and_(IS_HELD, EventRow.policy == self._policy)
        sources = {event.source for event in self._events}
        by_source = (
            select(EventRow.source, func.count())
            .where(of_line, EventRow.source.in_(sources))
            .group_by(EventRow.source)
        )
        for source, count in session.execute(by_source):
            held[source, None] = count
        by_subject = (
            select(EventRow.source, EventRow.subject_id, func.count())
            .where(
                of_line,
                EventRow.source.in_(sources),
                EventRow.subject_id.in_({event.subject_id for event in self._events}),
            )
            .group_by(EventRow.source, EventRow.subject_id)
        )
        for source, subject_id, count in session.execute(by_subject):
            held[source, subject_id] = count
        return held


class HoldExpiry:
    """Quarantines what was held for too long."""

    def __init__(self, settings: ScreeningSettings, *, policy: str) -> None:
        self._policy = policy
        self._ends = (
            (Reason.AWAITING_INTERACTION, settings.hold_ttl_s, Reason.HOLD_EXPIRED),
            (Reason.AWAITING_QUORUM, settings.quorum_ttl_s, Reason.QUORUM_EXPIRED),
        )

    def expire(self, database: Database, *, now: datetime) -> int:
        """Quarantine what is overdue; how many events that was."""
        num_expired = 0
        for waiting_for, ttl_s, reason in self._ends:
            overdue = and_(
                IS_HELD,
                EventRow.policy == self._policy,
                EventRow.reason == waiting_for.value,
                EventRow.received_at < now - timedelta(seconds=ttl_s),
            )
            for keys in _chunks(database, overdue):
                num_expired += self._quarantine(database, overdue, keys, reason)
        return num_expired

    def _quarantine(
        self,
        database: Database,
        overdue: ColumnElement[bool],
        keys: Sequence[str],
        reason: Reason,
    ) -> int:
        values = {"status": EventStatus.QUARANTINED.value, "reason": reason.value, "detail": None}
        counts = ScreeningCounts(policy=self._policy)
        with database.session() as session:
            # Or screening could judge what it read as held before and writes after.
            lock_screening(session)
            still_overdue = and_(EventRow.event_key.in_(keys), overdue)
            done = session.execute(update(EventRow).where(still_overdue).values(values))
            number = int(done.rowcount)  # type: ignore[attr-defined]
            counts.add(EventStatus.QUARANTINED, reason, number=number)
            counts.write(session)
        return number


def _chunks(database: Database, overdue: ColumnElement[bool]) -> Iterator[list[str]]:
    """Keys of what is overdue. Looked at by a reader: an idle consumer takes no write lock."""
    query = select(EventRow.event_key).where(overdue).limit(_EXPIRE_CHUNK)
    while True:
        with database.reader() as session:
            keys = list(session.scalars(query))
        if not keys:
            return
        yield keys
