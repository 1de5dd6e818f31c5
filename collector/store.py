"""EventStore: the screened events, which batch trains on which, and what stands aside.

Methods that take a session run inside the caller's transaction, so that the loop can seal a batch
and assign its events in one.
"""

import random
from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import ColumnElement, and_, func, or_, select, update
from sqlalchemy.orm import Session

from collector.reasons import Doubt, Reason
from collector.screening.counters import ScreeningCounts
from collector.screening.pending import TEACHING_KINDS
from collector.screening.weights import weigh, whole_interactions
from collector.tables import EventRow, StreamPositionRow
from tacit.contracts import EventStatus, FeedbackEvent, InlineInteraction, ScreenedEvent
from tacit.database import Database, among
from tacit.errors import ConflictError

TRAINABLE_KINDS = ("correction", "preference", "outcome", "rating", "critique")
_CHUNK = 500
_DOUBTED = "other feedback on similar questions contradicts it"
_INTERACTION = func.coalesce(EventRow.about, EventRow.event_key)


class EventStore:
    """Reads and assigns screened events."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def count_trainable(self, policy: str, *, session: Session | None = None) -> int:
        """How many interactions have feedback that ``take`` could give, now or in ``session``.

        Reports on one interaction weigh as one, so they are one towards a batch too.
        """
        query = select(func.count(_INTERACTION.distinct())).where(_trainable(policy))
        if session is not None:
            return session.scalar(query) or 0
        with self._database.reader() as reader:
            return reader.scalar(query) or 0

    def waiting(self, policy: str, *, limit: int) -> list[ScreenedEvent]:
        """What ``take`` would give now, in order of screening."""
        with self._database.reader() as session:
            rows = self._oldest(session, policy, limit=limit)
            return [screened(row) for row in rows]

    def _oldest(
        self, session: Session, policy: str, *, limit: int, only: Collection[str] | None = None
    ) -> list[EventRow]:
        """Those whose interactions were first reported on, in order of screening."""
        first = func.min(EventRow.sequence).over(partition_by=_INTERACTION)
        query = select(EventRow).where(_trainable(policy)).order_by(first, EventRow.sequence)
        if only is not None:
            query = query.where(among(session, EventRow.event_key, only))
        rows = whole_interactions(list(session.scalars(query.limit(limit + 1))), limit=limit)
        return sorted(rows, key=lambda row: row.sequence)

    def take(
        self,
        session: Session,
        policy: str,
        *,
        limit: int,
        factors: Mapping[str, float] | None = None,
        only: Collection[str] | None = None,
    ) -> list[ScreenedEvent]:
        """The oldest accepted events in no batch yet, in order of screening, weighed.

        All on one interaction go together, where ``limit`` allows it. ``factors``, by event key,
        change weights. With ``only`` these keys no others are given, so that what came since the
        caller looked waits. The caller's transaction keeps all of it.
        """
        rows = self._oldest(session, policy, limit=limit, only=only)
        weigh(session, rows)
        for row in rows:
            factor = (factors or {}).get(row.event_key)
            row.undoubted = None if factor is None else row.weight
            if factor is not None:
                row.weight *= factor
                row.detail = f"{_DOUBTED}: {factor:g} of its weight"
            elif row.detail and row.detail.startswith(_DOUBTED):
                row.detail = None  # of a batch that came to nothing
        return [_sealed(row) for row in rows]

    def refute(self, session: Session, policy: str, reasons: Mapping[str, str]) -> None:
        """Quarantine what the anchor contradicts of the feedback that waits or is held out.

        ``reasons``, for a person, are by event key; other events stay as they are.
        """
        query = select(EventRow).where(
            or_(_trainable(policy), _held_out(policy)),
            among(session, EventRow.event_key, reasons),
        )
        rows = session.scalars(query).all() if reasons else []
        for row in rows:
            row.status, row.reason = EventStatus.QUARANTINED.value, Reason.AGAINST_ANCHOR.value
            row.detail, row.doubt = reasons[row.event_key], Doubt.REFUTED.value
        session.flush()
        counts = ScreeningCounts(policy=policy)
        counts.add(EventStatus.QUARANTINED, Reason.AGAINST_ANCHOR, number=len(rows))
        counts.write(session)

    def refuted(self, policy: str, *, limit: int) -> list[ScreenedEvent]:
        """The newest of what the anchor refuted and nobody released, dropped or not; oldest first.

        What was erased is not there.
        """
        stood = (EventRow.doubt == Doubt.REFUTED, EventRow.status == EventStatus.QUARANTINED)
        return self._select(and_(EventRow.policy == policy, *stood), limit=limit)[::-1]

    def cleared(self, policy: str) -> frozenset[str]:
        """Keys of the events that a person released from quarantine."""
        query = select(EventRow.event_key).where(
            EventRow.policy == policy, EventRow.doubt == Doubt.CLEARED
        )
        with self._database.reader() as session:
            return frozenset(session.scalars(query))

    def assign(self, session: Session, event_keys: Sequence[str], *, batch_id: str) -> None:
        """Give events to the one batch that trains on them.

        Raises ConflictError, and assigns none, if any is in a batch or no longer accepted.
        """
        num_assigned = 0
        for start in range(0, len(event_keys), _CHUNK):
            free = and_(
                EventRow.event_key.in_(event_keys[start : start + _CHUNK]),
                EventRow.status == EventStatus.ACCEPTED,
                EventRow.batch_id.is_(None),
            )
            done = session.execute(update(EventRow).where(free).values(batch_id=batch_id))
            num_assigned += done.rowcount  # type: ignore[attr-defined]
        if num_assigned != len(event_keys):
            raise ConflictError(
                f"{len(event_keys)} accepted events in no batch",
                got=f"{num_assigned}",
                mend="Take the events again in this transaction.",
            )

    def release_batch(self, session: Session, batch_id: str) -> None:
        """Give the events of a batch that never became a candidate back to the next one."""
        accepted = and_(EventRow.batch_id == batch_id, EventRow.status == EventStatus.ACCEPTED)
        session.execute(update(EventRow).where(accepted).values(batch_id=None))

    def set_aside(self, session: Session, batch_ids: Sequence[str], *, reason: str) -> int:
        """Quarantine the events of batches whose candidate was rejected or rolled back."""
        accepted = and_(EventRow.batch_id.in_(batch_ids), EventRow.status == EventStatus.ACCEPTED)
        by_policy = select(EventRow.policy, func.count()).where(accepted).group_by(EventRow.policy)
        for policy, number in session.execute(by_policy).all():
            counts = ScreeningCounts(policy=policy)
            counts.add(EventStatus.QUARANTINED, Reason(reason), number=number)
            counts.write(session)
        values = {"status": EventStatus.QUARANTINED.value, "reason": reason}
        done = session.execute(update(EventRow).where(accepted).values(values))
        return int(done.rowcount)  # type: ignore[attr-defined]

    def take_back(self, session: Session, batch_ids: Sequence[str], *, keep: bool) -> None:
        """What a rollback does to the feedback behind it: set aside, or free for the next batch."""
        if not keep:
            self.set_aside(session, batch_ids, reason=Reason.ROLLED_BACK)
            return
        for batch_id in batch_ids:
            self.release_batch(session, batch_id)

    def watermark(self, session: Session) -> dict[str, int]:
        """Last offset screened of each ``topic/partition``."""
        rows = session.scalars(select(StreamPositionRow).order_by(StreamPositionRow.topic))
        return {f"{row.topic}/{row.partition}": row.next_offset - 1 for row in rows}

    def events_of(self, batch_id: str) -> list[ScreenedEvent]:
        """Events of a batch in order of screening, those set aside since among them."""
        return self._select(EventRow.batch_id == batch_id, newest_first=False)

    def learned(
        self, policy: str, *, limit: int, batch_ids: Sequence[str] | None = None
    ) -> list[ScreenedEvent]:
        """Accepted events in ``batch_ids`` (those promoted), or in any batch; newest first."""
        return self._select(_learned(policy, batch_ids), limit=limit)

    def lessons(
        self, policy: str, *, limit: int, seed: int, batch_ids: Sequence[str] | None = None
    ) -> list[ScreenedEvent]:
        """As ``learned``, but of more than ``limit`` only half are the newest.

        The other half is a sample of all that came before, another for another ``seed``: no lesson
        is out of reach for its age. Each weighs what it would if it had never been doubted.
        """
        learned = _learned(policy, batch_ids)
        query = select(EventRow.sequence).where(learned).order_by(EventRow.sequence.desc())
        with self._database.reader() as session:
            sequences = session.scalars(query).all()
        newest, older = sequences[: limit // 2], sequences[limit // 2 :]
        if len(sequences) > limit:
            older = random.Random(seed).sample(older, limit - len(newest))
        chosen = sorted([*newest, *older], reverse=True)
        found: list[ScreenedEvent] = []
        for start in range(0, len(chosen), _CHUNK):
            these = EventRow.sequence.in_(chosen[start : start + _CHUNK])
            found += self._select(and_(learned, these), undoubted=True)
        return found

    def holdout(self, policy: str, *, limit: int) -> list[ScreenedEvent]:
        """Held-out corrections and preferences, newest first: what a suite can be made of."""
        return self._select(_held_out(policy), limit=limit)

    def trained_clusters(self, policy: str) -> set[str]:
        """Near-duplicate clusters with an event in any batch, whatever became of its candidate."""
        in_batch = and_(EventRow.policy == policy, EventRow.batch_id.is_not(None))
        with self._database.reader() as session:
            return set(session.scalars(select(EventRow.cluster).where(in_batch).distinct()))

    def counts(self, policy: str, *, source: str | None = None) -> dict[EventStatus, int]:
        """Number of events by status, of one source or of all; every status is there."""
        counts = dict.fromkeys(EventStatus, 0)
        query = select(EventRow.status, func.count()).where(_line(policy, source))
        with self._database.reader() as session:
            for status, count in session.execute(query.group_by(EventRow.status)):
                counts[EventStatus(status)] = count
        return counts

    def reasons(self, policy: str, *, source: str | None = None) -> dict[str, int]:
        """Number of quarantined events by reason, of one source or of all."""
        quarantined = and_(_line(policy, source), EventRow.status == EventStatus.QUARANTINED)
        query = select(EventRow.reason, func.count()).where(quarantined).group_by(EventRow.reason)
        with self._database.reader() as session:
            return {reason or "": count for reason, count in session.execute(query)}

    def find(self, source: str | None, event_id: str) -> EventRow | None:
        """The row of an event; without ``source`` that of any source."""
        with self._database.reader() as session:
            if source is not None:
                return session.get(EventRow, f"{source}/{event_id}")
            return session.scalar(select(EventRow).where(EventRow.event_id == event_id).limit(1))

    def _select(
        self,
        condition: ColumnElement[bool],
        *,
        limit: int | None = None,
        newest_first: bool = True,
        undoubted: bool = False,
    ) -> list[ScreenedEvent]:
        order = EventRow.sequence.desc() if newest_first else EventRow.sequence
        with self._database.reader() as session:
            rows = session.scalars(select(EventRow).where(condition).order_by(order).limit(limit))
            return [screened(row, undoubted=undoubted) for row in rows]


def _learned(policy: str, batch_ids: Sequence[str] | None) -> ColumnElement[bool]:
    in_batch = (
        EventRow.batch_id.is_not(None) if batch_ids is None else EventRow.batch_id.in_(batch_ids)
    )
    return and_(EventRow.policy == policy, EventRow.status == EventStatus.ACCEPTED, in_batch)


def screened(row: EventRow, *, undoubted: bool = False) -> ScreenedEvent:
    """The contract of a row that was joined to its interaction.

    With ``undoubted`` it weighs what it would if no other feedback had contradicted it.
    """
    restored = row.undoubted if undoubted else None
    return ScreenedEvent(
        event_key=row.event_key,
        policy=row.policy,
        event=FeedbackEvent.model_validate_json(row.payload),
        interaction=InlineInteraction.model_validate_json(row.interaction or "null"),
        weight=row.weight if restored is None else restored,
        reward=row.reward,
        cluster=row.cluster,
    )


def _sealed(row: EventRow) -> ScreenedEvent:
    event = screened(row)
    row.event_digest = event.event_digest
    return event


def _line(policy: str, source: str | None) -> ColumnElement[bool]:
    of_policy = EventRow.policy == policy
    return of_policy if source is None else and_(of_policy, EventRow.source == source)


def _held_out(policy: str) -> ColumnElement[bool]:
    return and_(
        EventRow.policy == policy,
        EventRow.status == EventStatus.HOLDOUT,
        EventRow.kind.in_(TEACHING_KINDS),
    )


def _trainable(policy: str) -> ColumnElement[bool]:
    return and_(
        EventRow.policy == policy,
        EventRow.status == EventStatus.ACCEPTED,
        EventRow.batch_id.is_(None),
        EventRow.kind.in_(TRAINABLE_KINDS),
    )
