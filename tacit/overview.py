"""What the review pages and ``tacit status`` show of the stages the gatekeeper may not import."""

import logging
from collections.abc import Sequence
from functools import lru_cache

import httpx

from collector.store import EventStore
from deploy.release import ReleaseDesk
from deploy.rollout import RolloutDesk
from evaluator.store import ReportStore
from gatekeeper.dossier import LoopStatus
from tacit.config import Settings
from tacit.contracts import Digest, EvalReport, PolicyCandidate, ScreenedEvent
from tacit.cycles import CycleState, CycleStore
from tacit.database import Database
from tacit.errors import ConflictError
from trainer.store import CandidateStore

logger = logging.getLogger(__name__)

MLFLOW_TIMEOUT_S = 2.0


class Overview:
    """Reads candidates, reports, events, cycles and releases for one policy line."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        releases: ReleaseDesk,
        rollouts: RolloutDesk,
    ) -> None:
        self._settings = settings
        self._cycles = CycleStore(database)
        self._events = EventStore(database)
        self._candidates = CandidateStore(database)
        self._reports = ReportStore(database)
        self._releases = releases
        self._rollouts = rollouts

    def candidate(self, candidate_id: str) -> PolicyCandidate:
        """The candidate. Raises NotFoundError."""
        return self._candidates.get(candidate_id)

    def report(self, candidate_digest: Digest) -> EvalReport | None:
        """The report about a candidate, if it was evaluated."""
        return self._reports.of_candidate(candidate_digest)

    def learned(self, candidate_id: str) -> Sequence[ScreenedEvent]:
        """The feedback in the candidate's batch, in training order."""
        return self._events.events_of(self.candidate(candidate_id).batch_id)

    def mlflow_url(self, candidate_id: str) -> str | None:
        """Where a person sees the candidate's run; None while MLflow does not answer."""
        run_id = self.candidate(candidate_id).mlflow_run_id
        return None if run_id is None else _run_url(self._settings.tracking_uri, run_id)

    def status(self) -> LoopStatus:
        """Where the loop stands now."""
        policy = self._settings.policy
        cycle, releases = self._cycles.latest(policy), self._releases.history(policy, limit=2)
        rollout = self._rollout()
        # During a rollout the newest is not yet what serves everybody.
        release = next(iter(releases if rollout is None else releases[1:]), None)
        last = self._cycles.last_ended(policy)
        return LoopStatus(
            policy=policy,
            cycle_id=None if cycle is None else cycle.cycle_id,
            cycle_state=None if cycle is None else CycleState(cycle.state),
            cycle_purpose=None if cycle is None else cycle.purpose,
            last_state=None if last is None else CycleState(last.state),
            last_reason=None if last is None else last.reason,
            events=self._events.counts(policy),
            num_trainable=self._events.count_trainable(policy),
            num_needed=self._settings.loop.min_events,
            release_id=None if release is None else release.release_id,
            weights=None if release is None else release.weights,
            rollout=rollout,
            mlflow_url=self._settings.tracking_uri,
        )

    def _rollout(self) -> str | None:
        try:
            found = self._rollouts.under_way(self._settings.policy)
        except ConflictError as error:
            return str(error)
        return None if found is None else f"{found.release_id} at {found.step}"


def _run_url(uri: str, run_id: str) -> str | None:
    experiment = _experiment_of(uri, run_id)
    return None if experiment is None else f"{uri}/#/experiments/{experiment}/runs/{run_id}"


def _experiment_of(uri: str, run_id: str) -> str | None:
    try:
        return _ask_experiment(uri, run_id)
    except (httpx.HTTPError, KeyError, ValueError) as error:
        logger.info("MLflow did not say where run %s is: %s", run_id, error)
        return None


@lru_cache(maxsize=1_024)
def _ask_experiment(uri: str, run_id: str) -> str:
    # One call of its REST API; importing MLflow for it would cost this process seconds and memory.
    response = httpx.get(
        f"{uri}/api/2.0/mlflow/runs/get", params={"run_id": run_id}, timeout=MLFLOW_TIMEOUT_S
    )
    response.raise_for_status()
    return str(response.json()["run"]["info"]["experiment_id"])
