"""FeedbackLineage: which candidates learned from a batch, and which releases carry what it taught.

In: the batch an event is in. Out: what ``GET /v1/feedback/{event_id}`` adds to the event's own
status. A release carries a candidate if the candidate is its weights or among their ancestors.
"""

from collections import OrderedDict
from typing import Any

from deploy.release import ReleaseDesk
from tacit.contracts import Digest, PolicyCandidate, Release
from tacit.cycles import CycleStore
from tacit.database import Database
from trainer.store import CandidateStore

MAX_RELEASES = 100
"""The newest releases looked at by default; one that is older and carries it is not listed."""
_MAX_KNOWN_PARENTS = 10_000


class FeedbackLineage:
    """Reads candidates, cycles and releases of one policy line; safe to share between threads."""

    def __init__(
        self,
        policy: str,
        database: Database,
        releases: ReleaseDesk,
        *,
        max_releases: int = MAX_RELEASES,
    ) -> None:
        self._policy = policy
        self._candidates = CandidateStore(database)
        self._cycles = CycleStore(database)
        self._releases = releases
        self._max_releases = max_releases
        # The parent of weights never changes, since weights are named by their content.
        self._parents: OrderedDict[Digest, Digest | None] = OrderedDict()

    def of(self, batch_id: str) -> dict[str, Any]:
        """``{"candidates": [{candidate_id, weights, state}], "releases": [...]}``.

        A release is ``{release_id, state, since}``, newest first; its state is ``serving``,
        ``replaced`` or ``rolled_back``.
        """
        made = self._candidates.of_batch(batch_id)
        taught = {candidate.weights for candidate in made}
        return {
            "candidates": [self.candidate(candidate) for candidate in made],
            "releases": self.carriers(taught) if taught else [],
        }

    def candidate(self, candidate: PolicyCandidate) -> dict[str, Any]:
        """``{candidate_id, weights, state}``; the state is that of its cycle."""
        cycle = self._cycles.of_candidate(candidate.candidate_id)
        return {
            "candidate_id": candidate.candidate_id,
            "weights": candidate.weights,
            "state": None if cycle is None else cycle.state,
        }

    def carriers(self, taught: set[Digest]) -> list[dict[str, Any]]:
        """Releases whose weights are, or descend from, any of ``taught``; newest first."""
        newest_first = self._releases.history(self._policy, limit=self._max_releases)
        taken_back = {release.rollback_of for release in newest_first}
        carries = dict.fromkeys(taught, True)
        return [
            {
                "release_id": release.release_id,
                "state": state_of(release, newest=newest_first[0], taken_back=taken_back),
                "since": release.released_at.isoformat(),
            }
            for release in newest_first
            if self._descends(release.weights, carries)
        ]

    def _descends(self, weights: Digest, carries: dict[Digest, bool]) -> bool:
        """Whether ``weights`` carry what was taught; ``carries`` is what is known, and grows."""
        path: list[Digest] = []
        here: Digest | None = weights
        while here is not None and here not in carries:
            path.append(here)
            # No ancestor of itself: a loop would be one of digests.
            here = self._parent(here)
        found = here is not None and carries[here]
        carries.update(dict.fromkeys(path, found))
        return found

    def _parent(self, weights: Digest) -> Digest | None:
        if weights not in self._parents:
            parent = self._candidates.parent_of(weights)
            if parent is None:
                return None
            self._parents[weights] = parent
            if len(self._parents) > _MAX_KNOWN_PARENTS:
                self._parents.popitem(last=False)
        return self._parents.get(weights)


def state_of(release: Release, *, newest: Release, taken_back: set[str | None]) -> str:
    """``serving``, ``replaced`` or ``rolled_back``; ``taken_back`` are ids that rollbacks name."""
    if release.release_id == newest.release_id:
        return "serving"
    return "rolled_back" if release.release_id in taken_back else "replaced"
