"""What the rules of screening look back on: who sent how much, and who said what already.

In: the events about to be judged. Out: counts and facts of just their subjects, clusters and
interactions, read in a handful of queries, and kept up while the chunk is judged.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from collector.clusters import cluster_of, prompt_text
from collector.pending import pending
from collector.store import TRAINABLE_KINDS
from collector.tables import EventRow
from tacit.contracts import EventStatus, FeedbackEvent, InlineInteraction, Outcome


@dataclass(frozen=True)
class Arrival:
    """A redacted event with what it is about."""

    event: FeedbackEvent
    interaction: InlineInteraction
    interaction_id: str | None
    received_at: datetime
    prompt: str
    cluster: str

    @property
    def subject(self) -> str:
        """``source/subject_id``: each source picks its own subject ids."""
        return f"{self.event.source}/{self.event.subject_id}"

    @property
    def trains(self) -> bool:
        """Whether a batch can take it. Critiques are in none yet and would fill a cap for ever."""
        return self.event.feedback.type in TRAINABLE_KINDS


class _Said(NamedTuple):
    """Who said which kind of thing about what; said twice it weighs once."""

    subject: str
    kind: str
    about: str


def arrive(
    event: FeedbackEvent,
    interaction: InlineInteraction,
    *,
    interaction_id: str | None,
    received_at: datetime,
) -> Arrival:
    """An Arrival with the cluster of its prompt."""
    prompt = prompt_text(interaction)
    return Arrival(event, interaction, interaction_id, received_at, prompt, cluster_of(prompt))


class History:
    """Of the chunk given to ``read``; used by one thread."""

    def __init__(self, *, policy: str) -> None:
        self._policy = policy
        self.of_subject: Counter[str] = Counter()
        """Events of a subject in this cycle."""
        self.of_cluster: Counter[str] = Counter()
        """Events of a cluster in this cycle."""
        self.trained: Counter[str] = Counter()
        """Events of a subject in batches."""
        self._said: set[_Said] = set()

    def read(self, session: Session, arrivals: Sequence[Arrival], *, cycle_start: int) -> None:
        """Read what judging ``arrivals`` needs to know."""
        subject_ids = {arrival.event.subject_id for arrival in arrivals}
        clusters = {arrival.cluster for arrival in arrivals}
        self._count_pending(session, subject_ids, clusters, cycle_start)
        self._count_trained(session, subject_ids)
        self._read_said(session, arrivals, subject_ids)

    def add(self, arrival: Arrival) -> None:
        """Count an event that was let through."""
        self._said.add(_said_by(arrival))
        if arrival.trains:
            self.of_subject[arrival.subject] += 1
            self.of_cluster[arrival.cluster] += 1

    def has_said(self, arrival: Arrival) -> bool:
        """Whether the subject has said this kind of thing about this interaction before."""
        return _said_by(arrival) in self._said

    def _count_pending(
        self, session: Session, subject_ids: set[str], clusters: set[str], cycle_start: int
    ) -> None:
        counted = and_(pending(self._policy, cycle_start), EventRow.kind.in_(TRAINABLE_KINDS))
        by_subject = (
            select(EventRow.source, EventRow.subject_id, func.count())
            .where(counted, EventRow.subject_id.in_(subject_ids))
            .group_by(EventRow.source, EventRow.subject_id)
        )
        by_cluster = (
            select(EventRow.cluster, func.count())
            .where(counted, EventRow.cluster.in_(clusters))
            .group_by(EventRow.cluster)
        )
        self.of_subject = Counter({f"{s}/{u}": n for s, u, n in session.execute(by_subject)})
        self.of_cluster = Counter({row.cluster: row[1] for row in session.execute(by_cluster)})

    def _count_trained(self, session: Session, subject_ids: set[str]) -> None:
        trained = (
            select(EventRow.source, EventRow.subject_id, func.count())
            .where(
                EventRow.policy == self._policy,
                EventRow.subject_id.in_(subject_ids),
                EventRow.status == EventStatus.ACCEPTED,
                EventRow.batch_id.is_not(None),
            )
            .group_by(EventRow.source, EventRow.subject_id)
        )
        self.trained = Counter({f"{s}/{u}": n for s, u, n in session.execute(trained)})

    def _read_said(
        self, session: Session, arrivals: Sequence[Arrival], subject_ids: set[str]
    ) -> None:
        ids = {a.interaction_id for a in arrivals if a.interaction_id is not None}
        clusters = {a.cluster for a in arrivals if a.interaction_id is None}
        inline = and_(EventRow.interaction_id.is_(None), EventRow.cluster.in_(clusters))
        query = select(EventRow.payload, EventRow.interaction, EventRow.interaction_id).where(
            EventRow.subject_id.in_(subject_ids),
            EventRow.status.in_((EventStatus.ACCEPTED, EventStatus.HOLDOUT)),
            or_(EventRow.interaction_id.in_(ids), inline),
        )
        self._said = {
            _said(FeedbackEvent.model_validate_json(payload), interaction_id or interaction or "")
            for payload, interaction, interaction_id in session.execute(query)
        }


def cycle_start_of(session: Session, *, policy: str) -> int:
    """Sequence of the newest event in a batch: held-out events after it are of this cycle."""
    newest_trained = (
        select(EventRow.sequence)
        .where(EventRow.policy == policy, EventRow.batch_id.is_not(None))
        .order_by(EventRow.sequence.desc())
        .limit(1)
    )
    found = session.scalar(newest_trained)
    return -1 if found is None else found


def _said_by(arrival: Arrival) -> _Said:
    about = arrival.interaction_id or arrival.interaction.model_dump_json()
    return _said(arrival.event, about)


def _said(event: FeedbackEvent, about: str) -> _Said:
    feedback = event.feedback
    kind = f"outcome:{feedback.metric}" if isinstance(feedback, Outcome) else feedback.type
    return _Said(f"{event.source}/{event.subject_id}", kind, about)
