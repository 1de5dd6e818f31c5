"""Whether the stage of a rollout is over, from what has come in since it began.

In: a rollout under way. Out: go on, move up, or roll back, with the reason. A shadow stage counts
comparisons, a canary stage feeds live feedback to the sequential test of ``deploy/sequential.py``.
All of it can be read again, so a loop that starts anew comes to the same verdict.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

from deploy.rollout import Rollout
from deploy.sequential import ArmTest
from deploy.tables import ShadowRow, Stage
from tacit.config import RolloutSettings
from tacit.contracts import LiveVerdict, Release, utc_now
from tacit.cycles import CycleRow
from tacit.live import LiveFeedback, last_sequence
from tacit.stages import Stages, known


class Judgement(NamedTuple):
    """What becomes of a stage, and why."""

    verdict: LiveVerdict
    why: str


class _Test(NamedTuple):
    """The test of one canary stage and where its feedback comes from."""

    since: datetime
    arms: ArmTest
    feedback: LiveFeedback


class StageJudge:
    """Judges the stages of one policy line's rollouts."""

    def __init__(self, stages: Stages, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._stages = stages
        self._clock = clock
        self._test: _Test | None = None
        self._found: Judgement | None = None

    @property
    def _settings(self) -> RolloutSettings:
        return self._stages.settings.deploy.rollout

    def judge(
        self, cycle: CycleRow, rollout: Rollout, releases: tuple[Release, Release]
    ) -> Judgement:
        """The verdict on the present stage; ``releases`` are champion and canary."""
        if rollout.step.stage is Stage.SHADOW:
            found = judge_shadow(self._stages.rollouts.shadow(rollout.release_id), self._settings)
        else:
            found = self._judge_canary(cycle, rollout, releases)
        waited = self._clock() - rollout.since
        limit = timedelta(seconds=self._settings.max_stage_s)
        if found.verdict != "continue" or waited <= limit:
            return found
        if self._settings.without_feedback == "wait":
            return found
        why = f"{limit} went by without a verdict: {found.why}"
        return Judgement(self._settings.without_feedback, why)

    def _judge_canary(
        self, cycle: CycleRow, rollout: Rollout, releases: tuple[Release, Release]
    ) -> Judgement:
        test = self._test
        if test is None or test.since != rollout.since:
            test = self._test = self._open(cycle, rollout, releases)
            self._found = None
        try:
            new = test.feedback.read()
        except Exception:
            self._test = None  # what was read of it may be lost: the next look reads all again
            raise
        for outcome in new:
            test.arms.update(outcome.arm, outcome.subject, outcome.success)
        if new:
            self._found = None  # known anew once it is noted
        if self._found is None:
            summary = test.arms.summary
            self._stages.rollouts.note(rollout, summary.model_dump_json())
            self._found = Judgement(summary.verdict, summary.why)
        return self._found

    def _open(self, cycle: CycleRow, rollout: Rollout, releases: tuple[Release, Release]) -> _Test:
        settings = self._settings
        champion, canary = releases
        # Each stage is tested anew, so that each shares the error budget of the rollout.
        arms = ArmTest(
            alpha=settings.alpha / max(len(settings.canary_shares), 1),
            margin=settings.margin,
            min_feedback=settings.min_feedback,
        )
        with self._stages.database.reader() as session:
            after = last_sequence(session, [known(cycle.batch_id)])
        feedback = LiveFeedback(
            self._stages.database,
            self._stages.policy,
            arms={champion.weights: "champion", canary.weights: "canary"},
            since=rollout.since,
            after=after,
        )
        return _Test(rollout.since, arms, feedback)


def judge_shadow(counts: ShadowRow | None, settings: RolloutSettings) -> Judgement:
    """Up once enough was compared; back once more of it failed than may."""
    compared = 0 if counts is None else counts.num_compared
    errors = 0 if counts is None else max(counts.canary_errors - counts.champion_errors, 0)
    asked = max(compared + errors, settings.min_shadow)
    told = f"{compared} of {settings.min_shadow} answers compared in the shadow, {errors} failed"
    if errors > settings.max_shadow_error_share * asked:
        return Judgement("rollback", told)
    return Judgement("promote" if compared >= settings.min_shadow else "continue", told)
