"""LiveFeedback: what products said about the answers of two releases, as successes in [0, 1].

In: screened events joined to the interactions that serving recorded. Out: one LiveOutcome an event
that says how good the answer was, in order of screening. Each read returns what is new, so that
nothing is read twice; a new object starts from the beginning of the comparison.

    outcome, rating  its reward, mapped from [-1, 1] to [0, 1]; a metric that counts down is turned
    correction       0: somebody had to write what the answer should have been
    preference       1 if the answer that was served is the chosen text, 0 if it is the rejected one
    critique         does not count: whether words praise or blame is not known

Quarantined, held and erased events do not count; held-out ones do. Only the version that serving
recorded says which release answered: what a product claims inline does not count either, nor does
an answer of a version that the caller named during a rollout: nobody was drawn to it.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Row, Select, and_, func, select
from sqlalchemy.orm import Session

from collector.tables import EventRow, InteractionRow
from tacit.contracts import Arm, Digest, EventStatus, short
from tacit.database import Database

COUNTED_KINDS = ("outcome", "rating", "correction", "preference")
PAGE_SIZE = 1_000


class LiveOutcome(NamedTuple):
    """One piece of feedback on an answer of one of the releases."""

    subject: str
    """``source/subject_id``."""
    arm: Arm
    success: float
    at: datetime
    """When the answer was given."""
    event_key: str


class LiveFeedback:
    """Reads the feedback on answers given ``since``, as it comes; used by one thread."""

    def __init__(
        self,
        database: Database,
        policy: str,
        *,
        arms: Mapping[Digest, Arm],
        since: datetime,
        after: int = -1,
    ) -> None:
        """``arms``: which weights are compared. ``after``: the sequence of an event after which
        all that counts was screened, such as the last one of the batch that taught the canary.
        """
        self._database = database
        self._policy = policy
        self._arms = {version_of(policy, weights): arm for weights, arm in arms.items()}
        self._since = since
        self._after = after

    def read(self) -> list[LiveOutcome]:
        """What has come since the last read, in order of screening."""
        found: list[LiveOutcome] = []
        while True:
            with self._database.reader() as session:
                rows = session.execute(self._page()).all()
            for row in rows:
                outcome = outcome_of(row, self._arms)
                if outcome is not None and outcome.at >= self._since:
                    found.append(outcome)
            if rows:
                self._after = rows[-1][0]
            if len(rows) < PAGE_SIZE:
                return found

    def _page(self) -> Select[*tuple[Any, ...]]:
        newer = EventRow.sequence > self._after
        return feedback_query(self._policy, newer).order_by(EventRow.sequence).limit(PAGE_SIZE)


def feedback_before(
    database: Database,
    policy: str,
    weights: Digest,
    *,
    until: datetime,
    limit: int,
    after: int = -1,
) -> list[LiveOutcome]:
    """The newest ``limit`` outcomes of ``weights`` that had come ``until`` then, oldest first.

    As arm ``champion``. ``after`` as for :class:`LiveFeedback`.
    """
    arms: dict[str, Arm] = {version_of(policy, weights): "champion"}
    found: list[LiveOutcome] = []
    below: int | None = None
    while len(found) < limit:
        wanted = and_(EventRow.sequence > after, EventRow.received_at <= until)
        if below is not None:
            wanted = and_(wanted, EventRow.sequence < below)
        query = feedback_query(policy, wanted).order_by(EventRow.sequence.desc()).limit(PAGE_SIZE)
        with database.reader() as session:
            rows = session.execute(query).all()
        outcomes = (outcome_of(row, arms) for row in rows)
        found += [outcome for outcome in outcomes if outcome is not None]
        if len(rows) < PAGE_SIZE:
            break
        below = rows[-1][0]
    return found[:limit][::-1]


def feedback_query(policy: str, condition: ColumnElement[bool]) -> Select[*tuple[Any, ...]]:
    """Events that count and have a recorded interaction, as :func:`outcome_of` takes them."""
    counted = and_(
        EventRow.policy == policy,
        EventRow.status.in_((EventStatus.ACCEPTED, EventStatus.HOLDOUT)),
        EventRow.kind.in_(COUNTED_KINDS),
        condition,
    )
    columns = (
        EventRow.sequence,
        EventRow.event_key,
        EventRow.source,
        EventRow.subject_id,
        EventRow.kind,
        EventRow.payload,
        EventRow.reward,
        InteractionRow.payload,
        InteractionRow.occurred_at,
    )
    return select(*columns).join(InteractionRow, same_interaction()).where(counted)


def same_interaction() -> ColumnElement[bool]:
    """That an event is about an interaction of its own product and policy line.

    Ids are each source's own: what another names is another's to judge.
    """
    return and_(
        InteractionRow.interaction_id == EventRow.interaction_id,
        InteractionRow.source == EventRow.source,
        InteractionRow.policy == EventRow.policy,
    )


def outcome_of(row: Row[*tuple[Any, ...]], arms: Mapping[str, Arm]) -> LiveOutcome | None:
    """The outcome in a row of :func:`feedback_query`; None if it says nothing about ``arms``."""
    _, event_key, source, subject_id, kind, payload, reward, recorded, at = row
    interaction = json.loads(recorded)
    arm = arms.get(interaction["policy_version"] or "")
    if arm is None or interaction.get("arm") == "pinned":
        return None
    success = _success(kind, payload, reward, answer=interaction["completion"])
    if success is None:
        return None
    return LiveOutcome(f"{source}/{subject_id}", arm, success, at, event_key)


def version_of(policy: str, weights: Digest) -> str:
    """``policy@digest12``, as serving records it."""
    return f"{policy}@{short(weights)}"


def last_sequence(session: Session, batch_ids: Sequence[str]) -> int:
    """Sequence of the last event of the batches; -1 if they have none."""
    newest = select(func.max(EventRow.sequence)).where(EventRow.batch_id.in_(batch_ids))
    found = session.scalar(newest)
    return -1 if found is None else found


def _success(kind: str, payload: str, reward: float | None, *, answer: str) -> float | None:
    if kind == "correction":
        return 0.0
    if kind == "preference":
        feedback = json.loads(payload)["feedback"]
        if answer == feedback["chosen"]:
            return 1.0
        return 0.0 if answer == feedback["rejected"] else None
    return None if reward is None else (1 + min(max(reward, -1.0), 1.0)) / 2
