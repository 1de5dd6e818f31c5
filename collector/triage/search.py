"""EventSearch: finding screened events for a person, newest first, a page at a time.

An id or a subject is looked up by index. Words are looked for in the newest events alone, so that
no question reads a whole table.
"""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, or_, select, tuple_, union_all

from collector.tables import EventRow
from collector.triage.quarantine import Cursor
from tacit.contracts import EventStatus
from tacit.database import Database

MAX_READ = 20_000
"""Newest events whose words are looked at."""

_FEW = frozenset(
    {EventStatus.HELD, EventStatus.QUARANTINED, EventStatus.DEAD_LETTER, EventStatus.ERASED}
)
"""Statuses of so few events that these are sorted; others are read off in order of screening."""


@dataclass(frozen=True)
class EventFilter:
    """Which events; None is any."""

    text: str | None = None
    """An event's id or key, a subject, or else words in what was asked, answered or said."""
    status: EventStatus | None = None
    reason: str | None = None
    kind: str | None = None
    source: str | None = None
    subject: str | None = None
    hidden: frozenset[EventStatus] = frozenset()
    """Statuses that whoever asks may not see."""


class EventSearch:
    """Searches the events of one policy line; safe to share between threads."""

    def __init__(self, database: Database, policy: str) -> None:
        self._database = database
        self._policy = policy

    def page(
        self, wanted: EventFilter, *, after: Cursor | None = None, limit: int = 50
    ) -> list[EventRow]:
        """Events that fit, newest first, those behind ``after``."""
        conditions = self._conditions(wanted)
        if after is not None:
            conditions.append(tuple_(EventRow.sequence, EventRow.event_key) < tuple_(*after))
        if wanted.text is None:
            return self._select(conditions, limit)
        named = self._select([*conditions, _named(wanted.text)], limit)
        return named or self._select([*conditions, _says(wanted.text)], limit)

    def get(self, event_key: str) -> EventRow | None:
        """One event of the policy line, if it was screened."""
        with self._database.reader() as session:
            row = session.get(EventRow, event_key)
        return row if row is not None and row.policy == self._policy else None

    def beside(self, batch_id: str) -> tuple[int, int]:
        """Of the events from the first to the last of a batch: all, and those quarantined.

        What was trained on and set aside afterwards is not among the quarantined.
        """
        first, last = func.min(EventRow.sequence), func.max(EventRow.sequence)
        quarantined = (EventRow.status == EventStatus.QUARANTINED) & EventRow.batch_id.is_(None)
        with self._database.reader() as session:
            ends = session.execute(select(first, last).where(EventRow.batch_id == batch_id)).one()
            if ends[0] is None:
                return 0, 0
            between = (_of_line(self._policy), EventRow.sequence.between(*ends))
            query = select(func.count(), func.count().filter(quarantined)).where(*between)
            num_events, num_quarantined = session.execute(query).one()
        return num_events, num_quarantined

    def _conditions(self, wanted: EventFilter) -> list[ColumnElement[bool]]:
        exact = {
            EventRow.status: wanted.status,
            EventRow.reason: wanted.reason,
            EventRow.kind: wanted.kind,
            EventRow.source: wanted.source,
            EventRow.subject_id: wanted.subject,
        }
        conditions = [column == value for column, value in exact.items() if value is not None]
        if wanted.hidden:
            conditions.append(EventRow.status.not_in(sorted(wanted.hidden)))
        few = wanted.status in _FEW and wanted.text is None
        line = EventRow.policy == self._policy if few else _of_line(self._policy)
        return [line, *conditions]

    def _select(self, conditions: list[ColumnElement[bool]], limit: int) -> list[EventRow]:
        newest_first = (EventRow.sequence.desc(), EventRow.event_key.desc())
        query = select(EventRow).where(*conditions).order_by(*newest_first).limit(limit)
        with self._database.reader() as session:
            return list(session.scalars(query))


def _of_line(policy: str) -> ColumnElement[bool]:
    """The policy line, said so that no index on it is taken: nearly all events are of one."""
    return EventRow.policy.concat("") == policy


def _named(text: str) -> ColumnElement[bool]:
    columns = (EventRow.event_key, EventRow.event_id, EventRow.subject_id)
    # One look into an index each; an OR would read every event.
    return EventRow.event_key.in_(
        union_all(*(select(EventRow.event_key).where(column == text) for column in columns))
    )


def _says(text: str) -> ColumnElement[bool]:
    newest = select(func.max(EventRow.sequence)).scalar_subquery()
    words = [
        column.icontains(text, autoescape=True)
        for column in (EventRow.payload, EventRow.interaction)
    ]
    return (EventRow.sequence > newest - MAX_READ) & or_(*words)
