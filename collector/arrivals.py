"""FeedbackWriter: feedback records of one chunk on their way into the events table.

Parse, drop what is there already, redact, join, screen, write; and screen again what was held once
its interaction has come. All inside the consumer's transaction.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.orm import Session

from collector.dead_letters import bury
from collector.join import Joined, Joiner
from collector.parse import parse_event, require_admissible
from collector.redaction import redact_event
from collector.screening import Judgement, Screener
from collector.streams import StreamRecord
from collector.tables import EventRow
from tacit.config import Settings
from tacit.contracts import (
    EventStatus,
    FeedbackEvent,
    InlineInteraction,
    Interaction,
    ScreenedEvent,
)
from tacit.database import Database
from tacit.errors import InvalidInputError

_INADMISSIBLE = Judgement(EventStatus.DEAD_LETTER, "inadmissible", weight=0.0)


class _Sent(NamedTuple):
    record: StreamRecord
    event: FeedbackEvent
    """As sent."""
    body_digest: str


class FeedbackWriter:
    """Writes events and what became of them; used by one thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._hold_ttl = timedelta(seconds=settings.collector.screening.hold_ttl_s)
        self._screener = Screener(settings.collector.screening, policy=settings.policy)

    def forget(self) -> None:
        """The transaction was rolled back."""
        self._screener.forget()

    def write(self, session: Session, records: Sequence[StreamRecord], *, now: datetime) -> None:
        """Write each new event of ``records`` with what became of it."""
        sent = self._parse(session, records, now=now)
        fresh = self._new_ones(session, sent, now=now)
        admitted = [s for s in fresh if self._admit(session, s, now=now)]
        redacted = [redact_event(s.event) for s in admitted]
        joiner = Joiner(session, redacted)
        joined = [joiner.join(event, received_at=now) for event in redacted]
        self._screener.prepare(session, [j.arrival for j in joined if j.arrival is not None])
        sequence = _next_sequence(session)
        for each, origin in zip(joined, admitted, strict=True):
            judgement = self._judge(each, sequence)
            session.add(_row(each, judgement, origin.body_digest, sequence=sequence, now=now))
            sequence += 1
        session.flush()

    def rescreen(self, session: Session, arrived: Sequence[Interaction], *, now: datetime) -> None:
        """Screen again what was held for the interactions that have ``arrived``."""
        rows = _held_for(session, arrived)
        events = [FeedbackEvent.model_validate_json(row.payload) for row in rows]
        joiner = Joiner(session, events)
        joined = [
            joiner.join(event, received_at=row.received_at)
            for event, row in zip(events, rows, strict=True)
        ]
        self._screener.prepare(session, [j.arrival for j in joined if j.arrival is not None])
        sequence = _next_sequence(session)
        for each, row in zip(joined, rows, strict=True):
            judgement = self._judge(each, sequence)
            if judgement.status != EventStatus.HELD:
                _apply(row, each, judgement, sequence=sequence)
                sequence += 1
        session.flush()

    def expire_held(self, database: Database, *, now: datetime) -> None:
        """Quarantine what was held for longer than its interaction may take."""
        overdue = and_(
            EventRow.policy == self._settings.policy,
            EventRow.status == EventStatus.HELD,
            EventRow.received_at < now - self._hold_ttl,
        )
        # Looked at first: an idle consumer should not take the write lock four times a second.
        with database.reader() as session:
            if session.scalar(select(EventRow.event_key).where(overdue).limit(1)) is None:
                return
        values = {"status": EventStatus.QUARANTINED.value, "reason": "hold_expired"}
        with database.session() as session:
            session.execute(update(EventRow).where(overdue).values(values))

    def _judge(self, joined: Joined, sequence: int) -> Judgement:
        if joined.judgement is not None:
            return joined.judgement
        assert joined.arrival is not None
        return self._screener.judge(joined.arrival, sequence=sequence)

    def _parse(
        self, session: Session, records: Sequence[StreamRecord], *, now: datetime
    ) -> list[_Sent]:
        sent: list[_Sent] = []
        for record in records:
            try:
                event = parse_event(record.value)
            except InvalidInputError as error:
                bury(session, record, reason="unparsable", detail=str(error), now=now)
            else:
                sent.append(_Sent(record, event, event.digest()))
        return sent

    def _new_ones(self, session: Session, sent: Sequence[_Sent], *, now: datetime) -> list[_Sent]:
        """Those whose key is new. The same body again is a retry; another body a conflict."""
        known = _body_digests(session, {s.event.event_key for s in sent})
        fresh: list[_Sent] = []
        for each in sent:
            first = known.setdefault(each.event.event_key, "")
            if not first:
                known[each.event.event_key] = each.body_digest
                fresh.append(each)
            elif first != each.body_digest:
                detail = f"{each.event.event_key} was sent before with another body"
                bury(session, each.record, reason="conflict", detail=detail, now=now)
        return fresh

    def _admit(self, session: Session, sent: _Sent, *, now: datetime) -> bool:
        try:
            require_admissible(sent.event, self._settings)
        except InvalidInputError as error:
            bury(session, sent.record, reason="inadmissible", detail=str(error), now=now)
            event = redact_event(sent.event)
            joined = Joined(event, event.interaction_id, None, None)
            judgement = _INADMISSIBLE._replace(detail=str(error))
            sequence = _next_sequence(session)
            session.add(_row(joined, judgement, sent.body_digest, sequence=sequence, now=now))
            session.flush()
            return False
        return True


def _row(
    joined: Joined, judgement: Judgement, body_digest: str, *, sequence: int, now: datetime
) -> EventRow:
    event = joined.event
    row = EventRow(
        event_key=event.event_key,
        policy=event.policy,
        source=event.source,
        event_id=event.event_id,
        subject_id=event.subject_id,
        kind=event.feedback.type,
        body_digest=body_digest,
        payload=event.model_dump_json(),
        episode_id=event.episode_id,
        occurred_at=event.occurred_at,
        received_at=now,
        cluster="",
        interaction=None,
        event_digest=None,
        batch_id=None,
    )
    _apply(row, joined, judgement, sequence=sequence)
    return row


def _apply(row: EventRow, joined: Joined, judgement: Judgement, *, sequence: int) -> None:
    row.status = judgement.status.value
    row.reason = judgement.reason
    row.detail = judgement.detail
    row.weight = judgement.weight
    row.sequence = sequence
    row.interaction_id = joined.interaction_id
    if joined.arrival is not None:
        row.cluster = joined.arrival.cluster
        row.interaction = joined.arrival.interaction.model_dump_json()
        row.event_digest = _screened_digest(joined.event, joined.arrival.interaction, row)


def _screened_digest(event: FeedbackEvent, interaction: InlineInteraction, row: EventRow) -> str:
    screened = ScreenedEvent(
        event_key=row.event_key,
        policy=row.policy,
        event=event,
        interaction=interaction,
        weight=row.weight,
        cluster=row.cluster,
    )
    return screened.event_digest


def _next_sequence(session: Session) -> int:
    newest = session.scalar(select(func.max(EventRow.sequence)))
    return 0 if newest is None else newest + 1


def _body_digests(session: Session, keys: set[str]) -> dict[str, str]:
    rows = session.execute(
        select(EventRow.event_key, EventRow.body_digest).where(EventRow.event_key.in_(keys))
    )
    return {row.event_key: row.body_digest for row in rows}


def _held_for(session: Session, arrived: Sequence[Interaction]) -> list[EventRow]:
    ids = {interaction.interaction_id for interaction in arrived}
    episodes = {i.episode_id for i in arrived if i.episode_id is not None}
    by_episode = and_(EventRow.interaction_id.is_(None), EventRow.episode_id.in_(episodes))
    return list(
        session.scalars(
            select(EventRow)
            .where(
                EventRow.status == EventStatus.HELD,
                or_(EventRow.interaction_id.in_(ids), by_episode),
            )
            .order_by(EventRow.sequence)
        )
    )
