"""Asking for a consolidation: the adapters promoted so far become one full checkpoint.

In: the wish of a person. Out: the cycle that is collecting, or the next one, has another purpose,
and the loop takes it from there: the candidate goes through evaluation, gate, decision and
promotion like any other. Refused while a cycle has its batch already: two candidates at once would
both want to follow what serves now.
"""

from collections.abc import Callable

from sqlalchemy.orm import Session

from deploy.release import ReleaseDesk
from tacit.checkpoints import CheckpointStore
from tacit.contracts import Digest, Fold, Part, Purpose
from tacit.contracts.base import Name
from tacit.cycles import CycleStore
from tacit.database import Database
from tacit.errors import ConflictError
from trainer.store import CandidateStore

PURPOSE: Purpose = "consolidation"

Journal = Callable[[Session, str, str, dict[str, object]], None]
"""Appends ``(kind, subject, body)`` to the ledger within the session's transaction."""


class ConsolidationRequest(Part):
    """Body of ``POST /v1/consolidation``."""

    dry_run: bool = False


class ConsolidationPlan(Part):
    """What a consolidation does."""

    policy: Name
    cycle_id: str
    """The cycle that does it."""
    champion: Digest
    """The adapter that serves."""
    base: Digest
    """The full checkpoint it sits on."""
    folds: tuple[Fold, ...]
    """The updates in it, oldest first."""
    size_bytes: int
    """Files of the base; the new checkpoint has about as many."""


class ConsolidationDesk:
    """Takes requests for one policy line."""

    def __init__(
        self,
        policy: str,
        database: Database,
        checkpoints: CheckpointStore,
        releases: ReleaseDesk,
        *,
        journal: Journal,
    ) -> None:
        self._policy = policy
        self._database = database
        self._checkpoints = checkpoints
        self._releases = releases
        self._journal = journal
        self._cycles = CycleStore(database)
        self._candidates = CandidateStore(database)

    def plan(self) -> ConsolidationPlan:
        """What asking now would do.

        Raises ConflictError if what serves has no adapter or a cycle has its batch already,
        NotFoundError or IntegrityError for the checkpoint.
        """
        with self._database.reader() as session:
            return self._plan(self._cycles.collecting(session, self._policy).cycle_id)

    def ask(self, *, by: str) -> ConsolidationPlan:
        """Have the loop consolidate next; asking again changes nothing. Raises as ``plan``."""
        with self._database.session() as session:
            cycle = self._cycles.collecting(session, self._policy)
            plan = self._plan(cycle.cycle_id)
            if cycle.purpose != PURPOSE:
                self._cycles.designate(session, cycle, PURPOSE)
                body: dict[str, object] = {"plan": plan.model_dump(mode="json"), "by": by}
                self._journal(session, "consolidation", cycle.cycle_id, body)
        return plan

    def _plan(self, cycle_id: str) -> ConsolidationPlan:
        champion, base = self._champion()
        folder = self._checkpoints.path(base)
        return ConsolidationPlan(
            policy=self._policy,
            cycle_id=cycle_id,
            champion=champion,
            base=base,
            folds=folds_behind(self._candidates, self._checkpoints, champion),
            size_bytes=sum(path.stat().st_size for path in folder.iterdir()),
        )

    def _champion(self) -> tuple[Digest, Digest]:
        """Weights that serve, and the base under them."""
        current = self._releases.current(self._policy)
        if current is None:
            raise ConflictError(
                "a promoted adapter", got="no release", mend="`tacit up` makes the first one."
            )
        base = self._checkpoints.manifest(current.weights).base
        if base is None:
            raise ConflictError(
                "a promoted adapter",
                got=f"{current.release_id}, a full checkpoint",
                mend="There is nothing to fold until the next candidate is promoted.",
            )
        return current.weights, base


def folds_behind(
    candidates: CandidateStore, checkpoints: CheckpointStore, adapter: Digest
) -> tuple[Fold, ...]:
    """The updates that led to ``adapter`` since the full checkpoint under it, oldest first."""
    base = checkpoints.manifest(adapter).base
    folds: list[Fold] = []
    for made in candidates.lineage(adapter):
        if made.weights == base:
            break
        folds.append(Fold(weights=made.weights, batch_digest=made.batch_digest))
    return tuple(reversed(folds))
