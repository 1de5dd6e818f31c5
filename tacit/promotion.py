"""From an approval to served weights: the release is made, and serving is waited for.

In: a cycle in ``promoting``. Out: the cycle ``promoted``, or ``failed`` and the release taken back,
because a replica refused it or did not load it in time.
"""

from collections.abc import Callable
from datetime import timedelta

from tacit.contracts import utc_now
from tacit.cycles import CycleRow, CycleState
from tacit.errors import ConflictError
from tacit.stages import Stages, known

REPLICA_ALIVE = timedelta(seconds=15)


class Promotion:
    """Takes the approved candidate of a cycle into service."""

    def __init__(self, stages: Stages, *, wait: Callable[[float], object]) -> None:
        """``wait`` lets seconds pass, or fewer when the loop is stopped."""
        self._stages = stages
        self._wait = wait

    def advance(self, cycle: CycleRow) -> None:
        """Make the release, then wait until every live replica serves it or one refuses it."""
        if cycle.release_id is None:
            self._release(cycle)
        else:
            self._settle(cycle, cycle.release_id)

    def _release(self, cycle: CycleRow) -> None:
        stages = self._stages
        candidate = stages.candidates.get(known(cycle.candidate_id))
        signed = stages.gatekeeper.decision_on(candidate.digest())
        if signed is None:
            raise ConflictError("a decision on a candidate that is being promoted", got="none")
        batch, _ = stages.batches.get(known(cycle.batch_id))
        report = stages.reports.get(known(cycle.report_id))
        by = signed.decision.decided_by
        with stages.database.session() as session:
            release = stages.releases.promote(
                session, candidate, report, batch, signed.envelope, by=by
            )
            stages.cycles.move(session, cycle, CycleState.PROMOTING, release_id=release.release_id)

    def _settle(self, cycle: CycleRow, release_id: str) -> None:
        stages = self._stages
        replicas = stages.releases.replicas(stages.policy)
        alive = [r for r in replicas if utc_now() - r.seen_at < REPLICA_ALIVE]
        refused = next((r for r in alive if r.refused == release_id), None)
        waited_s = (utc_now() - cycle.updated_at).total_seconds()
        late = waited_s > stages.settings.deploy.swap_timeout_s
        # A replica that loads for long is silent meanwhile: silence is waited for, then ignored.
        served = all(r.serving == release_id for r in alive) and (alive or not replicas or late)
        if refused is not None:
            self._take_back(cycle, release_id, refused.refusal or "serving refused it")
        elif served:
            with stages.database.session() as session:
                stages.cycles.move(session, cycle, CycleState.PROMOTED)
            stages.chronicle.follow_champion(stages.champion())
        elif late:
            self._take_back(cycle, release_id, "serving did not load it in time")
        else:
            self._wait(min(stages.settings.loop.poll_s, 0.1))

    def _take_back(self, cycle: CycleRow, release_id: str, reason: str) -> None:
        stages = self._stages
        with stages.database.session() as session:
            current = stages.releases.current(stages.policy)
            if current is not None and current.release_id == release_id:
                stages.releases.rollback(session, stages.policy, to=None, by="tacit", reason=reason)
            stages.events.set_aside(session, [known(cycle.batch_id)], reason="failed_release")
            stages.cycles.move(session, cycle, CycleState.FAILED, reason=reason)
