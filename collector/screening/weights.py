"""Weights: however many reports name one interaction, they weigh as one, now and later.

In: rows that a batch is about to take. Out: the same with ``weight`` set. A report weighs what its
subject has earned (``trust``), shared among the reports on the interaction that go together:

    weight = trust * left / number of reports        left = 1 - weights of earlier batches

At most ``CYCLE_SHARE`` of what is left goes to one batch, so what comes later weighs less and less
and never nothing, and the sum over all batches stays below 1. A report that other feedback
contradicts uses up as much as if none did: once that is settled it is rehearsed at full weight.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from collector.tables import EventRow
from tacit.contracts import EventStatus
from tacit.database import among

CYCLE_SHARE = 0.95


def whole_interactions(rows: Sequence[EventRow], *, limit: int) -> list[EventRow]:
    """At most ``limit`` of ``rows``, which stand together by interaction, the last one whole.

    An interaction with more than ``limit`` reports is cut, or it could never be taken.
    """
    if len(rows) <= limit:
        return list(rows)
    cut = _key(rows[limit])
    whole = [row for row in rows[:limit] if _key(row) != cut]
    return whole or list(rows[:limit])


def weigh(session: Session, rows: Sequence[EventRow]) -> None:
    """Set the weight of each of ``rows``, which one batch takes."""
    groups: defaultdict[str, list[EventRow]] = defaultdict(list)
    for row in rows:
        if row.about is None:
            row.weight = row.trust  # screened while screening was off: at full weight
        else:
            groups[row.about].append(row)
    spent = _spent(session, groups)
    for about, group in groups.items():
        left = max(0.0, 1.0 - spent.get(about, 0.0))
        mean = sum(row.trust for row in group) / len(group)
        share = left * min(1.0, CYCLE_SHARE / mean if mean else 1.0) / len(group)
        for row in group:
            row.weight = row.trust * share


def _spent(session: Session, abouts: Collection[str]) -> dict[str, float]:
    """Weight that batches have given to reports on each interaction."""
    full = func.coalesce(EventRow.undoubted, EventRow.weight)
    query = (
        select(EventRow.about, func.sum(full))
        .where(
            among(session, EventRow.about, abouts),
            EventRow.status == EventStatus.ACCEPTED,
            EventRow.batch_id.is_not(None),
        )
        .group_by(EventRow.about)
    )
    return {about or "": weight for about, weight in session.execute(query)}


def _key(row: EventRow) -> str:
    return row.about or row.event_key
