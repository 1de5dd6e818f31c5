"""Provenance: from a release to the feedback behind it, and from feedback or a person onwards.

In: the id of a release, a candidate, an event or a subject. Out: what ``tacit lineage`` and
``GET /v1/lineage`` show, and the ids under which the ledger speaks about it.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import select

from collector.tables import EventRow
from deploy.release import ReleaseDesk
from tacit.contracts import Digest, PolicyCandidate, short
from tacit.cycles import CycleRow, CycleState
from tacit.database import Database
from tacit.errors import NotFoundError
from tacit.lineage import FeedbackLineage, state_of
from trainer.store import CandidateStore
from trainer.tables import BatchRow

MAX_EVENTS = 10_000
"""Events named one by one; the counts are of all."""
MAX_RELEASES = 1_000
"""The newest releases looked at."""
_IDS_A_QUERY = 500


class Provenance:
    """Reads one policy line; safe to share between threads.

    ``decision_of`` gives the id of the decision on a candidate with an id, if there is one.
    """

    def __init__(
        self,
        policy: str,
        database: Database,
        releases: ReleaseDesk,
        decision_of: Callable[[str], str | None],
    ) -> None:
        self._policy = policy
        self._database = database
        self._releases = releases
        self._candidates = CandidateStore(database)
        self._lineage = FeedbackLineage(policy, database, releases, max_releases=MAX_RELEASES)
        self._decision_of = decision_of

    def of(self, about: str, *, source: str | None = None) -> dict[str, Any]:
        """What ``about`` came from or led to; an event's id comes before a subject's.

        ``source`` narrows events and subjects to one product, of releases and candidates too.
        Raises NotFoundError.
        """
        if about.startswith("r-"):
            found = self._of_release(about, source)
        elif about.startswith("c-"):
            found = self._of_candidate(about, source)
        else:
            found = None
        found = found or self._of_feedback(about, source)
        if found is None:
            raise NotFoundError("a release, candidate, event or subject of this line", got=about)
        return found

    def ledger_subjects(self, about: str) -> list[str]:
        """Ids of candidates, decisions and releases that ``about`` reached, or stands on.

        Raises NotFoundError.
        """
        found = self.of(about)
        ids = [made["candidate_id"] for made in found["candidates"]]
        decisions = [made["decision_id"] for made in found["candidates"]]
        releases = [release["release_id"] for release in found["releases"]]
        return [*ids, *filter(None, decisions), *releases]

    def _of_release(self, release_id: str, source: str | None) -> dict[str, Any] | None:
        history = self._releases.history(self._policy, limit=MAX_RELEASES)
        release = next((r for r in history if r.release_id == release_id), None)
        if release is None:
            return None
        taken_back = {later.rollback_of for later in history}
        state = state_of(release, newest=history[0], taken_back=taken_back)
        releases = [{"release_id": release_id, "state": state, "weights": release.weights}]
        made = self._candidates.lineage(release.weights)
        return self._back(made, releases, source) | {"kind": "release"}

    def _of_candidate(self, candidate_id: str, source: str | None) -> dict[str, Any] | None:
        try:
            candidate = self._candidates.get(candidate_id)
        except NotFoundError:
            return None
        if candidate.policy != self._policy:
            return None
        made = [candidate, *self._candidates.lineage(candidate.parent)]
        releases = self._lineage.carriers({candidate.weights})
        return self._back(made, releases, source) | {"kind": "candidate"}

    def _back(
        self,
        made: Sequence[PolicyCandidate],
        releases: list[dict[str, Any]],
        source: str | None,
    ) -> dict[str, Any]:
        rows = self._events_in([candidate.batch_id for candidate in made], source)
        counts = Counter(row.batch_id for row in rows)
        return {
            "candidates": [
                {**self._candidate(candidate), "num_events": counts[candidate.batch_id]}
                for candidate in made
            ],
            "releases": releases,
            **_events(rows),
        }

    def _of_feedback(self, about: str, source: str | None) -> dict[str, Any] | None:
        if "\x00" in about:
            return None
        line = EventRow.policy == self._policy
        if source is not None:
            line &= EventRow.source == source
        is_event = (EventRow.event_key == about) | (EventRow.event_id == about)
        for kind, condition in (("event", is_event), ("subject", EventRow.subject_id == about)):
            query = select(EventRow).where(line, condition).order_by(EventRow.sequence)
            with self._database.reader() as session:
                rows = session.scalars(query).all()
            if rows:
                return self._forth(rows) | {"kind": kind}
        return None

    def _forth(self, rows: Sequence[EventRow]) -> dict[str, Any]:
        batches = {row.batch_id for row in rows if row.batch_id is not None}
        batches |= self._batches_of_failed_cycles({row.event_key for row in rows})
        made = {
            candidate.candidate_id: candidate
            for batch_id in sorted(batches)
            for candidate in self._candidates.of_batch(batch_id)
        }
        taught: set[Digest] = {candidate.weights for candidate in made.values()}
        return {
            "candidates": [self._candidate(candidate) for candidate in made.values()],
            "releases": self._lineage.carriers(taught) if taught else [],
            **_events(rows),
        }

    def _batches_of_failed_cycles(self, event_keys: set[str]) -> set[str]:
        """Batches that a failed cycle gave back: their events may stand in a later one by now."""
        query = (
            select(BatchRow.batch_id, BatchRow.payload)
            .join(CycleRow, CycleRow.batch_id == BatchRow.batch_id)
            .where(CycleRow.policy == self._policy, CycleRow.state == CycleState.FAILED)
        )
        found: set[str] = set()
        with self._database.reader() as session:
            for batch_id, payload in session.execute(query):
                entries = json.loads(payload)["entries"]
                if event_keys & {entry["event_key"] for entry in entries}:
                    found.add(batch_id)
        return found

    def _events_in(self, batch_ids: Sequence[str], source: str | None) -> list[EventRow]:
        rows: list[EventRow] = []
        with self._database.reader() as session:
            for start in range(0, len(batch_ids), _IDS_A_QUERY):
                some = batch_ids[start : start + _IDS_A_QUERY]
                query = select(EventRow).where(EventRow.batch_id.in_(some))
                if source is not None:
                    query = query.where(EventRow.source == source)
                rows += session.scalars(query.order_by(EventRow.sequence.desc()))
        return rows

    def _candidate(self, candidate: PolicyCandidate) -> dict[str, Any]:
        return {
            **self._lineage.candidate(candidate),
            "parent": candidate.parent,
            "batch_id": candidate.batch_id,
            "folds": [f"b-{short(fold.batch_digest)}" for fold in candidate.folds],
            "decision_id": self._decision_of(candidate.candidate_id),
        }


def _events(rows: Iterable[EventRow]) -> dict[str, Any]:
    rows = list(rows)
    return {
        "num_events": len(rows),
        "num_subjects": len({(row.source, row.subject_id) for row in rows}),
        "sources": dict(Counter(row.source for row in rows)),
        "events": [
            {
                "event_key": row.event_key,
                "kind": row.kind,
                "subject_id": row.subject_id,
                "status": row.status,
                "batch_id": row.batch_id,
            }
            for row in rows[:MAX_EVENTS]
        ],
    }
