"""Interactions on their way from the stream into the database, redacted."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from collector.parse import parse_interaction
from collector.reasons import Reason
from collector.redaction.redact import redact_interaction
from collector.streams import StreamRecord
from collector.tables import InteractionRow
from collector.triage.dead_letters import bury
from tacit.contracts import Interaction
from tacit.database import among
from tacit.errors import InvalidInputError


class Recorded(NamedTuple):
    """One record and the interaction in it."""

    record: StreamRecord
    interaction: Interaction | None
    """Redacted; None if the record does not parse."""
    refusal: str


def read_interactions(records: Sequence[StreamRecord]) -> list[Recorded]:
    """Parse and redact ``records``; needs no database."""
    return [_read(record) for record in records]


def write_interactions(
    session: Session,
    recorded: Sequence[Recorded],
    *,
    now: datetime,
    on_dead_letter: Callable[[Reason], None],
) -> list[Interaction]:
    """Write new interactions and return them; the same one again is left out.

    What does not parse, and another interaction under a known id, goes to dead letter.
    """
    known = _payloads(
        session, {r.interaction.interaction_id for r in recorded if r.interaction is not None}
    )
    fresh: dict[str, Interaction] = {}
    for record, interaction, refusal in recorded:
        reason, detail = Reason.UNPARSABLE, refusal
        if interaction is not None:
            payload = interaction.model_dump_json()
            first = known.setdefault(interaction.interaction_id, payload)
            if first is payload:
                fresh[payload] = interaction
            if first == payload:
                continue
            reason = Reason.CONFLICT
            detail = f"{interaction.interaction_id} was recorded before and differs"
        bury(session, record, reason=reason, detail=detail, now=now)
        on_dead_letter(reason)
    if fresh:
        session.execute(insert(InteractionRow), [_row(i, payload) for payload, i in fresh.items()])
    session.flush()
    return list(fresh.values())


def _read(record: StreamRecord) -> Recorded:
    try:
        return Recorded(record, redact_interaction(parse_interaction(record.value)), "")
    except InvalidInputError as error:
        return Recorded(record, None, str(error))


def _payloads(session: Session, ids: set[str]) -> dict[str, str]:
    rows = session.execute(
        select(InteractionRow.interaction_id, InteractionRow.payload).where(
            among(session, InteractionRow.interaction_id, ids)
        )
    )
    return {row.interaction_id: row.payload for row in rows}


def _row(interaction: Interaction, payload: str) -> dict[str, Any]:
    return {
        "interaction_id": interaction.interaction_id,
        "policy": interaction.policy,
        "source": interaction.source,
        "episode_id": interaction.episode_id,
        "payload": payload,
        "occurred_at": interaction.occurred_at,
    }
