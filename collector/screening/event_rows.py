"""Rows of the events table from events and judgements, and queries that write and find them."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, delete, func, insert, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from collector.reasons import Reason
from collector.screening.arrival import Arrival, arrive
from collector.screening.join import Joined
from collector.screening.rules import Judgement
from collector.tables import IS_HELD, EventRow
from tacit.contracts import EventStatus, FeedbackEvent, InlineInteraction, Interaction
from tacit.database import among

Row = dict[str, Any]
"""Values by column."""

_TABLE = EventRow.__table__


def new_row(event: FeedbackEvent, *, body_digest: str, reward: float | None, now: datetime) -> Row:
    """What stands in a row whatever is judged; ``judged`` has the rest."""
    return {
        "event_key": event.event_key,
        "policy": event.policy,
        "source": event.source,
        "event_id": event.event_id,
        "subject_id": event.subject_id,
        "kind": event.feedback.type,
        "body_digest": body_digest,
        "reward": reward,
        "payload": event.__pydantic_serializer__.to_json(event).decode(),
        "episode_id": event.episode_id,
        "occurred_at": event.occurred_at,
        "received_at": now,
        "event_digest": None,
        "batch_id": None,
    }


def judged(joined: Joined, judgement: Judgement, *, sequence: int, shares: bool) -> Row:
    """What a judgement sets. ``shares``: whether the event shares the weight of its interaction."""
    arrival = joined.arrival
    row: Row = {
        "status": judgement.status.value,
        "reason": None if judgement.reason is None else judgement.reason.value,
        "detail": judgement.detail,
        "trust": judgement.weight,
        "weight": judgement.weight,
        "sequence": sequence,
        "interaction_id": joined.interaction_id,
    }
    if arrival is None:
        return row | dict.fromkeys(("interaction", "about", "said", "answer")) | {"cluster": ""}
    interaction = arrival.interaction
    return row | {
        "cluster": arrival.cluster,
        "interaction": interaction.__pydantic_serializer__.to_json(interaction).decode(),
        "about": arrival.about if shares else None,
        "said": arrival.said,
        "answer": arrival.answer_key,
    }


def insert_rows(session: Session, rows: Sequence[Row]) -> None:
    """Insert what ``new_row`` and ``judged`` made together."""
    if rows:
        session.execute(insert(_TABLE), rows)  # type: ignore[arg-type]


def update_rows(session: Session, changes: Sequence[tuple[str, Row]]) -> None:
    """Set, by event key, what ``judged`` made."""
    if changes:
        statement = update(_TABLE).where(EventRow.event_key == bindparam("key"))  # type: ignore[arg-type]
        session.execute(statement, [{"key": key, **row} for key, row in changes])


def arrival_of(row: EventRow) -> Arrival:
    """The arrival of a row that was joined before."""
    return arrive(
        FeedbackEvent.model_validate_json(row.payload),
        InlineInteraction.model_validate_json(row.interaction or "null"),
        interaction_id=row.interaction_id,
        received_at=row.received_at,
        cluster=row.cluster,
    )


def next_sequence(session: Session) -> int:
    """Sequence of the next row."""
    newest = session.scalar(select(func.max(EventRow.sequence)))
    return 0 if newest is None else newest + 1


def known_bodies(session: Session, keys: set[str]) -> dict[str, str]:
    """Digest of each known body. A dead letter is no answer: sent again, it is judged again."""
    rows = session.execute(
        select(EventRow.event_key, EventRow.body_digest, EventRow.status).where(
            among(session, EventRow.event_key, keys)
        )
    ).all()
    dead = {row.event_key for row in rows if row.status == EventStatus.DEAD_LETTER}
    if dead:
        session.execute(delete(EventRow).where(EventRow.event_key.in_(dead)))
    return {row.event_key: row.body_digest for row in rows if row.event_key not in dead}


def held_for(session: Session, arrived: Sequence[Interaction]) -> list[EventRow]:
    """Rows that wait for one of the interactions that have ``arrived``, in order."""
    ids = {interaction.interaction_id for interaction in arrived}
    rows = _waiting(session, EventRow.interaction_id, ids)
    episodes = {i.episode_id for i in arrived if i.episode_id is not None}
    if episodes:
        # Looked at here: SQLite would rather read all rows without an interaction id.
        of_episode = _waiting(session, EventRow.episode_id, episodes)
        rows += [row for row in of_episode if row.interaction_id is None]
    return sorted(rows, key=lambda row: row.sequence)


def _waiting(
    session: Session, column: InstrumentedAttribute[str | None], names: Collection[str]
) -> list[EventRow]:
    waiting = (IS_HELD, EventRow.reason == Reason.AWAITING_INTERACTION)
    return list(session.scalars(select(EventRow).where(*waiting, among(session, column, names))))
