"""Post-deploy watch: a release that does worse live than what it replaced is rolled back by itself.

In: live feedback on the release that serves, and the last feedback on what served before it. Out:
nothing, or a rollback with its numbers, and the feedback behind the release set aside. The loop
looks between its steps, and while it trains and evaluates. All that is known is read anew from the
database after a restart, in the same order, so that nothing about the watch has to be kept.

Unlike a canary this compares before with after: what else changed in between counts as if it were
the release's doing. So only a loss beyond ``deploy.watch.tolerance`` is evidence.
"""

import logging
import time
from collections.abc import Callable
from datetime import timedelta

from deploy.history import batches_taken_back, named_release
from deploy.sequential import ArmTest
from tacit.contracts import Release, short, utc_now
from tacit.cycles import CycleState
from tacit.errors import ConflictError, TacitError
from tacit.live import LiveFeedback, feedback_before, last_sequence
from tacit.stages import Stages

logger = logging.getLogger(__name__)


class PostDeployWatch:
    """Watches the newest release of a policy line."""

    def __init__(self, stages: Stages, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stages = stages
        self._settings = stages.settings.deploy.watch
        self._clock = clock
        self._looked_at_s = -float("inf")
        self._release: Release | None = None
        """The newest release; it is watched if there is a test of it."""
        self._feedback: LiveFeedback | None = None
        self._test: ArmTest | None = None

    def look(self) -> None:
        """Count what feedback came, at most once a ``loop.poll_s``, and roll back if it says so.

        A database that is away is tried again at the next look.
        """
        now_s = self._clock()
        if not self._settings.enabled or now_s - self._looked_at_s < self._interval_s:
            return
        self._looked_at_s = now_s
        try:
            self._look()
        except TacitError as error:
            self._release = None  # what was read of it may be incomplete
            logger.warning("the watch over the newest release is put off: %s", error)

    @property
    def _interval_s(self) -> float:
        return self._stages.settings.loop.poll_s

    def _look(self) -> None:
        release = self._stages.releases.current(self._stages.policy)
        if release is None or self._is_rolled_out(release):
            return
        if release != self._release:
            self._test = self._feedback = None
            self._open(release)
            self._release = release
        if self._test is None or self._feedback is None:
            return
        for outcome in self._feedback.read():
            verdict = self._test.update(outcome.arm, outcome.subject, outcome.success)
            if verdict == "rollback":
                self._roll_back(release, self._test)
                return
            if verdict == "promote":
                logger.info("%s is watched no more: %s", release.release_id, self._test.summary.why)
                self._test = None
                return
        if utc_now() - release.released_at > timedelta(seconds=self._settings.duration_s):
            self._test = None

    def _is_rolled_out(self, release: Release) -> bool:
        """Whether it is still on its way to all traffic, where its promotion looks after it."""
        cycle = self._stages.cycles.latest(self._stages.policy)
        under_way = cycle is not None and cycle.state == CycleState.PROMOTING
        return under_way and cycle is not None and cycle.release_id == release.release_id

    def _open(self, release: Release) -> None:
        """Begin to watch; not a first release nor one that rolled back to what is trusted."""
        if release.previous is None or release.rollback_of is not None:
            return
        stages, settings = self._stages, self._settings
        with stages.database.reader() as session:
            before = named_release(session, release, release.previous).weights
        test = ArmTest(
            alpha=settings.alpha, margin=settings.tolerance, tolerance=settings.tolerance
        )
        baseline = feedback_before(
            stages.database,
            stages.policy,
            before,
            until=release.released_at,
            limit=settings.baseline_feedback,
            after=self._taught(before),
        )
        for outcome in baseline:
            test.update(outcome.arm, outcome.subject, outcome.success)
        self._feedback = LiveFeedback(
            stages.database,
            stages.policy,
            arms={release.weights: "canary"},
            since=release.released_at,
            after=self._taught(release.weights),
        )
        self._test = test

    def _taught(self, weights: str) -> int:
        """Sequence of the last event that taught ``weights``: feedback on them came later."""
        batches = [made.batch_id for made in self._stages.candidates.lineage(weights)]
        with self._stages.database.reader() as session:
            return last_sequence(session, batches)

    def _roll_back(self, release: Release, test: ArmTest) -> None:
        stages = self._stages
        reason = f"live feedback after the release: {test.summary.why}"
        self._test = None
        try:
            with stages.database.session() as session:
                back = stages.releases.rollback(
                    session,
                    stages.policy,
                    to=release.previous,
                    of=release.release_id,
                    by="tacit",
                    reason=reason,
                )
                batches = batches_taken_back(session, stages.policy, back)
                names = [f"b-{short(batch)}" for batch in batches]
                stages.events.take_back(session, names, keep=False)
        except ConflictError as error:  # somebody was first
            logger.info("%s is not rolled back: %s", release.release_id, error)
            return
        logger.warning("%s is rolled back to %s: %s", release.release_id, back.release_id, reason)
        stages.chronicle.follow_champion(back.weights)
