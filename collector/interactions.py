"""Interactions on their way from the stream into the database, redacted."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from collector.dead_letters import bury
from collector.parse import parse_interaction
from collector.redaction import redact_interaction
from collector.streams import StreamRecord
from collector.tables import InteractionRow
from tacit.contracts import Interaction
from tacit.errors import InvalidInputError


def write_interactions(
    session: Session, records: Sequence[StreamRecord], *, now: datetime
) -> list[Interaction]:
    """Write new interactions and return them; the same one again is left out.

    What does not parse, and another interaction under a known id, goes to dead letter.
    """
    parsed: list[tuple[StreamRecord, Interaction]] = []
    for record in records:
        try:
            parsed.append((record, redact_interaction(parse_interaction(record.value))))
        except InvalidInputError as error:
            bury(session, record, reason="unparsable", detail=str(error), now=now)
    known = _payloads(session, {interaction.interaction_id for _, interaction in parsed})
    fresh: list[Interaction] = []
    for record, interaction in parsed:
        payload = interaction.model_dump_json()
        first = known.setdefault(interaction.interaction_id, "")
        if not first:
            known[interaction.interaction_id] = payload
            session.add(_row(interaction, payload))
            fresh.append(interaction)
        elif first != payload:
            detail = f"{interaction.interaction_id} was recorded before and differs"
            bury(session, record, reason="conflict", detail=detail, now=now)
    session.flush()
    return fresh


def _payloads(session: Session, ids: set[str]) -> dict[str, str]:
    rows = session.execute(
        select(InteractionRow.interaction_id, InteractionRow.payload).where(
            InteractionRow.interaction_id.in_(ids)
        )
    )
    return {row.interaction_id: row.payload for row in rows}


def _row(interaction: Interaction, payload: str) -> InteractionRow:
    return InteractionRow(
        interaction_id=interaction.interaction_id,
        policy=interaction.policy,
        source=interaction.source,
        episode_id=interaction.episode_id,
        payload=payload,
        occurred_at=interaction.occurred_at,
    )
