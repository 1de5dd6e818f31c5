"""From an approval to served weights: the release is made, rolled out, and waited for.

In: a cycle in ``promoting``. Out: the cycle ``promoted``, or ``failed`` and the release taken back,
because a replica refused it or did not load it in time, or because users fared worse with it.
Where the release stands is in the database, so any life of the loop goes on from there.
"""

import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from deploy.rollout import Rollout, following
from deploy.tables import ReplicaRow, Stage
from tacit.contracts import Release, utc_now
from tacit.cycles import CycleRow, CycleState
from tacit.errors import ConflictError, IntegrityError
from tacit.rollout import StageJudge
from tacit.stages import Stages, known

REPLICA_ALIVE = timedelta(seconds=15)


class Promotion:
    """Takes the approved candidate of a cycle into service."""

    def __init__(self, stages: Stages, *, wait: Callable[[float], object]) -> None:
        """``wait`` lets seconds pass, or fewer when the loop is stopped."""
        self._stages = stages
        self._wait = wait
        self._judge = StageJudge(stages)
        self._behind_since_s: float | None = None

    def advance(self, cycle: CycleRow) -> None:
        """Make the release, then take it from stage to stage until every live replica serves it."""
        if cycle.release_id is None:
            self._release(cycle)
            return
        newest, *before = self._stages.releases.history(self._stages.policy, limit=2)
        if newest.release_id != cycle.release_id:
            self._overtaken(cycle, newest)
            return
        try:
            rollout = self._stages.rollouts.of(cycle.release_id)
        except ConflictError as error:
            self.take_back(cycle, str(error))
            return
        if rollout is None:
            self._settle(cycle, cycle.release_id, since=cycle.updated_at)
        elif rollout.step.stage is Stage.FULL:
            self._settle(cycle, cycle.release_id, since=rollout.since)
        elif rollout.step.stage is Stage.ENDED:
            self.take_back(cycle, rollout.why)
        else:
            self._observe(cycle, rollout, (before[0], newest))

    def take_back(self, cycle: CycleRow, reason: str, *, set_aside: str = "failed_release") -> None:
        """Fail the cycle, and its release with it if that serves; its feedback is set aside.

        Raises IntegrityError if the release before was altered: nothing is signed on its word, but
        a rollout under way ends, so that no more users meet what is being taken back.
        """
        try:
            self._take_back(cycle, reason, set_aside)
        except IntegrityError as error:
            self._stages.rollouts.end(known(cycle.release_id), why=f"{reason}; {error}")
            raise

    def _take_back(self, cycle: CycleRow, reason: str, set_aside: str) -> None:
        stages = self._stages
        with stages.database.session() as session:
            current = stages.releases.current(stages.policy)
            if current is not None and current.release_id == cycle.release_id:
                stages.releases.rollback(
                    session, stages.policy, of=cycle.release_id, by="tacit", reason=reason
                )
            stages.events.set_aside(session, [known(cycle.batch_id)], reason=set_aside)
            stages.cycles.move(session, cycle, CycleState.FAILED, reason=reason)

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
            stages.rollouts.begin(session, release, stages.settings.deploy.rollout)
            stages.cycles.move(session, cycle, CycleState.PROMOTING, release_id=release.release_id)

    def _overtaken(self, cycle: CycleRow, newest: Release) -> None:
        # Whoever rolled back has said what becomes of the feedback.
        stages = self._stages
        reason = f"{newest.released_by} rolled it back: {newest.release_id} serves"
        with stages.database.session() as session:
            stages.cycles.move(session, cycle, CycleState.FAILED, reason=reason)

    def _observe(
        self, cycle: CycleRow, rollout: Rollout, releases: tuple[Release, Release]
    ) -> None:
        """One look at a rollout under way: roll back, move up, or wait."""
        stages = self._stages
        alive = self._alive()
        refused = next((r for r in alive if r.refused == rollout.release_id), None)
        if refused is not None:
            self.take_back(cycle, refused.refusal or "serving refused it")
            return
        found = self._judge.judge(cycle, rollout, releases)
        if found.verdict == "rollback":
            reason = f"{rollout.step}: {found.why}"
            self.take_back(cycle, reason, set_aside="rolled_back")
            stages.chronicle.note_rollout(cycle, reason)
        elif self._is_behind(alive, rollout):
            self._wait_or_take_back(cycle)
        elif found.verdict == "promote":
            step = following(rollout.step, stages.settings.deploy.rollout)
            with stages.database.session() as session:
                stages.rollouts.move(session, rollout, step, why=found.why, by="tacit")
            stages.chronicle.note_rollout(cycle, f"{step}: {found.why}")
        else:
            if cycle.attempts:  # a failed look days ago does not count any more
                stages.cycles.note(cycle, attempts=0)
            self._wait(stages.settings.loop.poll_s)

    def _is_behind(self, alive: Sequence[ReplicaRow], rollout: Rollout) -> bool:
        """Whether a replica does not follow yet; the time it takes runs while one does not."""
        share = rollout.step.share if rollout.step.stage is Stage.CANARY else 0.0
        follows = (rollout.release_id, share)
        if all((r.canary, r.canary_share) == follows for r in alive):
            self._behind_since_s = None
            return False
        if self._behind_since_s is None:
            self._behind_since_s = time.monotonic()
        return True

    def _wait_or_take_back(self, cycle: CycleRow) -> None:
        assert self._behind_since_s is not None
        waited_s = time.monotonic() - self._behind_since_s
        if waited_s > self._stages.settings.deploy.swap_timeout_s:
            self._behind_since_s = None
            self.take_back(cycle, "serving did not load it in time")
        else:
            self._wait(min(self._stages.settings.loop.poll_s, 0.1))

    def _settle(self, cycle: CycleRow, release_id: str, *, since: datetime) -> None:
        """Promoted once all live replicas serve nothing else."""
        stages = self._stages
        replicas, alive = stages.releases.replicas(stages.policy), self._alive()
        refused = next((r for r in alive if r.refused == release_id), None)
        waited_s = (utc_now() - since).total_seconds()
        late = waited_s > stages.settings.deploy.swap_timeout_s
        # A replica that loads for long is silent meanwhile: silence is waited for, then ignored.
        served = all(r.serving == release_id for r in alive) and (alive or not replicas or late)
        if refused is not None:
            self.take_back(cycle, refused.refusal or "serving refused it")
        elif served:
            with stages.database.session() as session:
                stages.cycles.move(session, cycle, CycleState.PROMOTED)
            stages.chronicle.follow_champion(stages.champion())
        elif late:
            self.take_back(cycle, "serving did not load it in time")
        else:
            self._wait(min(stages.settings.loop.poll_s, 0.1))

    def _alive(self) -> list[ReplicaRow]:
        replicas = self._stages.releases.replicas(self._stages.policy)
        return [r for r in replicas if utc_now() - r.seen_at < REPLICA_ALIVE]
