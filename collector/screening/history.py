"""What the rules of screening look back on: who sent how much, and who said what already.

In: the events about to be judged. Out: counts and facts of just their subjects, clusters and
interactions, read in a handful of queries, and kept up while the chunk is judged.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Integer, case, cast, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from collector.screening.arrival import Arrival
from collector.screening.pending import pending
from collector.store import TRAINABLE_KINDS
from collector.tables import EventRow
from tacit.contracts import EventStatus
from tacit.database import among

_LET_THROUGH = (EventStatus.ACCEPTED, EventStatus.HOLDOUT)


class History:
    """Of the chunk that is judged; used by one thread."""

    def __init__(self, *, policy: str) -> None:
        self._policy = policy
        self.begin()

    def begin(self) -> None:
        """Start with the next chunk: what other transactions did since is read again."""
        self.of_subject: Counter[str] = Counter()
        """Events of a subject in this cycle."""
        self.of_cluster: Counter[str] = Counter()
        """Events of a cluster in this cycle."""
        self.total_of_subject: Counter[str] = Counter()
        """Events of a subject that were ever let through and still stand."""
        self.total_of_cluster: Counter[str] = Counter()
        """Events of a cluster that were ever let through and still stand."""
        self.trained: Counter[str] = Counter()
        """Events of a subject in batches."""
        self._said: set[str] = set()
        self._read: set[tuple[str, str]] = set()

    def read(self, session: Session, arrivals: Sequence[Arrival], *, cycle_start: int) -> None:
        """Read what judging ``arrivals`` needs; what was read in this chunk stands."""
        subjects = self._unread("subject", (a.subject for a in arrivals))
        clusters = self._unread("cluster", (a.cluster for a in arrivals))
        said = self._unread("said", (a.said for a in arrivals))
        if subjects:
            self._read_subjects(session, arrivals, subjects, cycle_start)
        if clusters:
            self._read_clusters(session, clusters, cycle_start)
        if said:
            known = select(EventRow.said).where(
                among(session, EventRow.said, said), EventRow.status.in_(_LET_THROUGH)
            )
            self._said.update(key for key in session.scalars(known) if key is not None)

    def add(self, arrival: Arrival) -> None:
        """Count an event that was let through."""
        self._said.add(arrival.said)
        if arrival.trains:
            self.of_subject[arrival.subject] += 1
            self.of_cluster[arrival.cluster] += 1
            self.total_of_subject[arrival.subject] += 1
            self.total_of_cluster[arrival.cluster] += 1

    def has_said(self, arrival: Arrival) -> bool:
        """Whether the subject has said this kind of thing about this interaction before."""
        return arrival.said in self._said

    def _unread(self, what: str, keys: Iterable[str]) -> set[str]:
        unread = {key for key in keys if (what, key) not in self._read}
        self._read.update((what, key) for key in unread)
        return unread

    def _read_subjects(
        self, session: Session, arrivals: Sequence[Arrival], subjects: set[str], cycle_start: int
    ) -> None:
        ids = {a.event.subject_id for a in arrivals if a.subject in subjects}
        columns = (EventRow.source, EventRow.subject_id)
        query = self._counts(columns, cycle_start).where(among(session, EventRow.subject_id, ids))
        for source, subject_id, total, present, trained in session.execute(query):
            subject = f"{source}/{subject_id}"
            if subject in subjects:
                self.total_of_subject[subject] = total
                self.of_subject[subject] = present
                self.trained[subject] = trained

    def _read_clusters(self, session: Session, clusters: set[str], cycle_start: int) -> None:
        query = self._counts((EventRow.cluster,), cycle_start)
        for cluster, total, present, _ in session.execute(
            query.where(among(session, EventRow.cluster, clusters))
        ):
            self.total_of_cluster[cluster] = total
            self.of_cluster[cluster] = present

    def _counts(self, columns: Sequence[InstrumentedAttribute[str]], cycle_start: int) -> Any:
        """Per group: all that was let through, that of this cycle, that in batches."""
        return (
            select(
                *columns,
                func.count(),
                _number_of(pending(self._policy, cycle_start)),
                _number_of(EventRow.batch_id.is_not(None)),
            )
            .where(
                EventRow.policy == self._policy,
                EventRow.status.in_(_LET_THROUGH),
                EventRow.kind.in_(TRAINABLE_KINDS),
            )
            .group_by(*columns)
        )


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


def _number_of(condition: ColumnElement[bool]) -> ColumnElement[int]:
    # PostgreSQL sums integers to numerics.
    return cast(func.sum(case((condition, 1), else_=0)), Integer)
