"""Quarantine: a person looks at what screening set aside, and releases it or drops it for good.

In: event keys, who decides and why. Out: the rows changed and one entry in the ledger, in one
transaction. A release never lets anything into training that screening would keep out of every
batch: what was never joined to its interaction stays, what belongs to a held-out cluster is
measured and not trained on, and nothing of an erased subject comes back.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

from sqlalchemy import ColumnElement, select, tuple_
from sqlalchemy.orm import Session

from collector.positions import lock_screening
from collector.reasons import Doubt, Reason
from collector.screening.clusters import is_holdout
from collector.tables import EventRow
from tacit.config import Settings
from tacit.contracts import EventStatus
from tacit.database import Database
from tacit.errors import InvalidInputError, NotFoundError
from tacit.keys import Principal

MAX_EVENTS = 1_000
"""Events that one decision can be about."""

Verb = Literal["release", "drop"]
Journal = Callable[[Session, str, str, dict[str, object]], None]
"""Appends ``(kind, subject, body)`` to the ledger within the session's transaction."""


class Ruling(NamedTuple):
    """What a decision did with one event."""

    event_key: str
    status: str
    """``accepted``, ``holdout`` or ``dropped``; or ``refused``."""
    refusal: str | None = None
    """Why it was refused, for a person."""


class Cursor(NamedTuple):
    """Where a page ended."""

    sequence: int
    event_key: str

    def __str__(self) -> str:
        return f"{self.sequence}.{self.event_key}"

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """The cursor that ``str`` gave. Raises InvalidInputError."""
        sequence, _, event_key = text.partition(".")
        if not (sequence.isascii() and sequence.isdecimal() and len(sequence) < 19):
            raise InvalidInputError("the `next` of the page before", got=text)
        return cls(int(sequence), event_key.replace("\x00", ""))


class Quarantine:
    """The quarantined events of one policy line; safe to share between threads."""

    def __init__(self, database: Database, settings: Settings, journal: Journal) -> None:
        self._database = database
        self._policy = settings.policy
        self._holdout_share = settings.collector.screening.holdout_share
        self._journal = journal

    def page(
        self,
        *,
        reason: str | None = None,
        source: str | None = None,
        subject: str | None = None,
        after: Cursor | None = None,
        limit: int = 100,
    ) -> list[EventRow]:
        """Quarantined events, newest first; dropped ones only if ``reason`` asks for them."""
        wanted = [EventRow.policy == self._policy, EventRow.status == EventStatus.QUARANTINED]
        wanted.append(
            EventRow.reason.is_distinct_from(Reason.DROPPED)
            if reason is None
            else EventRow.reason == reason
        )
        if source is not None:
            wanted.append(EventRow.source == source)
        if subject is not None:
            wanted.append(EventRow.subject_id == subject)
        if after is not None:
            wanted.append(tuple_(EventRow.sequence, EventRow.event_key) < tuple_(*after))
        newest_first = (EventRow.sequence.desc(), EventRow.event_key.desc())
        with self._database.reader() as session:
            query = select(EventRow).where(*wanted).order_by(*newest_first).limit(limit)
            return list(session.scalars(query))

    def get(self, event_key: str) -> EventRow:
        """One quarantined event. Raises NotFoundError."""
        with self._database.reader() as session:
            row = session.get(EventRow, event_key)
        if row is None or (row.policy, row.status) != (self._policy, EventStatus.QUARANTINED):
            raise NotFoundError("a quarantined event of this policy line", got=event_key)
        return row

    def decide(
        self, verb: Verb, event_keys: Sequence[str], *, by: Principal, why: str
    ) -> list[Ruling]:
        """Release or drop events; a ruling for each, in order.

        Those that are done stand in the ledger with ``by`` and ``why``, in the transaction that
        changes them. Raises NotAllowedError, and changes none, if ``by`` is bound to another
        source or policy line than one of them.
        """
        with self._database.session() as session:
            # As the consumer does: what is let in here counts for the caps it checks next.
            lock_screening(session)
            rows = self._rows(session, event_keys)
            for row in rows.values():
                by.require_target(source=row.source, policy=row.policy)
            erased = _erased_subjects(session, rows.values())
            rulings: dict[str, Ruling] = {}
            reasons = {key: row.reason for key, row in rows.items()}
            for key in event_keys:
                if key not in rulings:
                    rulings[key] = self._rule(verb, key, rows.get(key), erased)
            self._record(session, verb, list(rulings.values()), reasons, by=by, why=why)
        return [rulings[key] for key in event_keys]

    def _rows(self, session: Session, event_keys: Sequence[str]) -> dict[str, EventRow]:
        chosen = (EventRow.event_key.in_(event_keys), EventRow.policy == self._policy)
        rows = session.scalars(select(EventRow).where(*chosen).with_for_update())
        return {row.event_key: row for row in rows}

    def _rule(
        self, verb: Verb, key: str, row: EventRow | None, erased: set[tuple[str, str]]
    ) -> Ruling:
        refusal = _refusal(verb, row, erased)
        if row is None or refusal is not None:
            return Ruling(key, "refused", refusal)
        if verb == "drop":
            _drop(row)
            return Ruling(key, "dropped")
        _release(row, held_out=is_holdout(row.cluster, share=self._holdout_share))
        return Ruling(key, row.status)

    def _record(
        self,
        session: Session,
        verb: Verb,
        rulings: Sequence[Ruling],
        reasons: dict[str, str | None],
        *,
        by: Principal,
        why: str,
    ) -> None:
        done = {r.event_key: r.status for r in rulings if r.refusal is None}
        if not done:
            return
        events = [
            {"event_key": key, "was": reasons[key], "became": status}
            for key, status in done.items()
        ]
        body: dict[str, object] = {"by": by.name, "reason": why, "events": events}
        self._journal(session, f"quarantine_{verb}", self._policy, body)


def _refusal(verb: Verb, row: EventRow | None, erased: set[tuple[str, str]]) -> str | None:
    if row is None:
        return "there is no such event"
    if row.status != EventStatus.QUARANTINED:
        return f"it is {row.status}, not quarantined"
    if row.reason == Reason.DROPPED:
        return "it was dropped for good"
    if verb == "drop":
        return None
    if row.interaction is None:
        return f"it was never joined to its interaction ({row.reason})"
    if (row.source, row.subject_id) in erased:
        return "its subject was erased"
    return None


def _release(row: EventRow, *, held_out: bool) -> None:
    row.detail = f"a person released it from quarantine ({row.reason})"
    row.reason = None
    row.doubt = Doubt.CLEARED.value
    row.status = (EventStatus.HOLDOUT if held_out else EventStatus.ACCEPTED).value
    # What a rejected or rolled back candidate learned from it does not serve, so that it may be
    # learned again; the manifest of its old batch still names it.
    row.batch_id = None


def _drop(row: EventRow) -> None:
    row.detail = f"it was quarantined as {row.reason}: {row.detail or ''}".rstrip(": ")
    row.reason = Reason.DROPPED.value


def _erased_subjects(session: Session, rows: Iterable[EventRow]) -> set[tuple[str, str]]:
    subjects = {(row.source, row.subject_id) for row in rows}
    erased: ColumnElement[bool] = EventRow.status == EventStatus.ERASED
    found = session.execute(
        select(EventRow.source, EventRow.subject_id)
        .where(EventRow.subject_id.in_({subject for _, subject in subjects}), erased)
        .distinct()
    )
    return {(source, subject) for source, subject in found} & subjects
