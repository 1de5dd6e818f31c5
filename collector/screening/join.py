"""Joining feedback to what it is about: recorded interactions, by id or by episode.

In: redacted events. Out: an Arrival, or why there is none yet, or why there never will be.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import String, column, select, values
from sqlalchemy.orm import Session, aliased

from collector.reasons import Reason
from collector.screening.arrival import Arrival, arrive
from collector.screening.near_duplicates import ClusterIndex
from collector.screening.rules import Judgement
from collector.tables import InteractionRow
from tacit.contracts import EventStatus, FeedbackEvent, InlineInteraction, Interaction
from tacit.database import among

HELD = Judgement(EventStatus.HELD, Reason.AWAITING_INTERACTION, "its interaction has not come yet")
FOREIGN = Judgement(
    EventStatus.QUARANTINED,
    Reason.FOREIGN_INTERACTION,
    "it names an interaction of another source or policy line",
)


class Joined(NamedTuple):
    """An event and what it is about, or the judgement that stands in its place."""

    event: FeedbackEvent
    interaction_id: str | None
    arrival: Arrival | None
    judgement: Judgement | None


class Joiner:
    """The interactions that a chunk of events names, read at once."""

    def __init__(self, session: Session, events: Sequence[FeedbackEvent]) -> None:
        ids = {e.interaction_id for e in events if e.interaction_id is not None}
        self._by_id = _by_id(session, ids)
        self._newest_of_episode = _newest_of_episode(session, events)

    def join(self, event: FeedbackEvent, *, received_at: datetime) -> Joined:
        """Join one of the events. What serving recorded wins over what the product says inline."""
        row = self._row(event)
        if row is not None and (row.source, row.policy) != (event.source, event.policy):
            return Joined(event, event.interaction_id, None, FOREIGN)
        interaction = _inline(row) if row is not None else event.interaction
        interaction_id = row.interaction_id if row is not None else event.interaction_id
        if interaction is None:
            return Joined(event, event.interaction_id, None, HELD)
        arrival = arrive(event, interaction, interaction_id=interaction_id, received_at=received_at)
        return Joined(event, interaction_id, arrival, None)

    def _row(self, event: FeedbackEvent) -> InteractionRow | None:
        if event.interaction_id is not None:
            return self._by_id.get(event.interaction_id)
        if event.interaction is None and event.episode_id is not None:
            return self._newest_of_episode.get((event.source, event.policy, event.episode_id))
        return None


def with_clusters(
    session: Session, joined: Sequence[Joined], clusters: ClusterIndex
) -> list[Joined]:
    """``joined`` with the near-duplicate cluster of each arrival."""
    prompts = [each.arrival.plain for each in joined if each.arrival is not None]
    found = iter(clusters.assign(session, prompts))
    return [
        each
        if each.arrival is None
        else each._replace(arrival=replace(each.arrival, cluster=next(found)))
        for each in joined
    ]


def _by_id(session: Session, ids: Collection[str]) -> dict[str, InteractionRow]:
    rows = session.scalars(
        select(InteractionRow).where(among(session, InteractionRow.interaction_id, ids))
    )
    return {row.interaction_id: row for row in rows}


def _newest_of_episode(
    session: Session, events: Sequence[FeedbackEvent]
) -> dict[tuple[str, str, str], InteractionRow]:
    # Episode ids are each source's own, so an episode is looked for among its source's alone.
    episodes = {
        (e.source, e.policy, e.episode_id)
        for e in events
        if e.episode_id is not None and e.interaction_id is None and e.interaction is None
    }
    if not episodes:
        return {}
    names = ("source", "policy", "episode_id")
    columns = [column(name, String) for name in names]
    asked = values(*columns, name="asked").data(sorted(episodes)).cte("asked")
    one = aliased(InteractionRow)
    newest = (
        select(one.interaction_id)
        .where(*[getattr(one, name) == asked.c[name] for name in names])
        .order_by(one.occurred_at.desc(), one.interaction_id.desc())
        .limit(1)
        .scalar_subquery()
    )
    # An episode may be long: of each the index gives one id, and one row is read.
    rows = session.scalars(
        select(InteractionRow).where(
            InteractionRow.interaction_id.in_(select(newest).select_from(asked))
        )
    )
    return {(row.source, row.policy, row.episode_id or ""): row for row in rows}


def _inline(row: InteractionRow) -> InlineInteraction:
    recorded = Interaction.model_validate_json(row.payload)
    fields = {name: getattr(recorded, name) for name in InlineInteraction.model_fields}
    return InlineInteraction.model_construct(**fields)
