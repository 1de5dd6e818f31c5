"""The whole of Tacit on one page: feedback in, an approved checkpoint out, over and over.

    collecting         the collector screens what products send, until there is enough to learn from
    → training         a batch is sealed; warm workers turn it into a candidate checkpoint
    → evaluating       the candidate answers every suite next to the champion and the frozen anchor
    → awaiting_decision the gate has its verdict; a person has the last word
    → promoting        a signed release is made; serving verifies it and swaps to it, at once or
                       in stages: in the shadow, then for some of the users, then for all
    → promoted | rejected | failed

No stage knows another: each takes contracts and returns contracts, and the loop hands them on. The
stages are opened in stages.py. Sealing and training are in learning.py with testimony.py and
rehearsal.py, evaluating and deciding in assessment.py, promoting in promotion.py with rollout.py. A
cycle's state stands in the database and moves in the same transaction as the work it stands for, so
that a loop killed anywhere and started again goes on from where it was.
"""

import logging
import threading
from collections.abc import Callable
from types import TracebackType

from collector.consume import Consumer
from collector.streams import Stream, open_stream
from tacit import log
from tacit.assessment import Assessment
from tacit.config import Settings
from tacit.contracts import Digest
from tacit.cycles import CycleRow, CycleState, LostCycleError
from tacit.errors import TacitError, TrainingError, UnavailableError
from tacit.learning import Learning
from tacit.live_watch import PostDeployWatch
from tacit.promotion import Promotion
from tacit.stages import Stages
from trainer.update import StepMetrics

logger = logging.getLogger(__name__)

_RETRY_S = 1.0


class LoopObserver:
    """Is told what the loop does; the terminal's progress bars are one. Does nothing by itself."""

    def on_state(self, cycle: CycleRow) -> None:
        """``cycle`` has just reached its state; called once per state, after the commit."""

    def on_step(self, step: StepMetrics) -> None:
        """One optimizer step is done."""

    def on_evaluation(self, suite: str, done: int, total: int) -> None:
        """``done`` of ``total`` items of ``suite`` are answered."""


class OnlineLoop(Stages):
    """Runs cycles of one policy line. Use as a context manager: it keeps workers warm.

    ``screens``: it also screens, in a thread; False where a screening process does
    (``tacit/screening.py``).
    """

    def __init__(
        self, settings: Settings, *, observer: LoopObserver | None = None, screens: bool = True
    ) -> None:
        super().__init__(settings)
        self.observer = observer or LoopObserver()
        self._stop = threading.Event()
        self._screens = screens
        self._screening: threading.Thread | None = None
        self._watch = PostDeployWatch(self)
        self._learning = Learning(self, on_step=self._on_step, on_evaluation=self._on_evaluation)
        self._assessment = Assessment(self, wait=self._stop.wait, on_evaluation=self._on_evaluation)
        self._promotion = Promotion(self, wait=self._stop.wait)
        self._steps: dict[CycleState, Callable[[CycleRow], None]] = {
            CycleState.COLLECTING: self._collect,
            CycleState.TRAINING: self._learning.train,
            CycleState.EVALUATING: self._evaluate,
            CycleState.AWAITING_DECISION: self._assessment.await_decision,
            CycleState.PROMOTING: self._promotion.advance,
        }

    # Starting and stopping

    def __enter__(self) -> "OnlineLoop":
        if not self.settings.collector.screening.enabled:
            with self.database.session() as session:
                self.ledger.append(session, "screening_disabled", self.policy, {})
            logger.warning("Screening is switched off: every well-formed event is accepted")
        if self._screens:
            stream = open_stream(self.settings)
            self._screening = threading.Thread(target=self._screen, args=(stream,), daemon=True)
            self._screening.start()
        self.trainer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        if self._screening is not None:
            self._screening.join(timeout=30)
        if self.evaluation_workers is not None:
            self.evaluation_workers.stop()
        self.trainer.stop()
        self.database.dispose()

    def stop(self) -> None:
        """Let :meth:`run_forever` and :meth:`run_cycle` return at the next chance."""
        self._stop.set()

    def begin(self, first_policy: Callable[[], Digest], *, by: str) -> None:
        """Make the first release, which is also the frozen anchor, unless there is one."""
        if self.releases.current(self.policy) is None:
            weights = first_policy()
            with self.database.session() as session:
                approval = self.gatekeeper.genesis(session, self.policy, weights, by=by)
                self.releases.first(session, self.policy, approval.envelope, by=by)
        self.chronicle.note_anchor(self.releases.anchor(self.policy))
        self.chronicle.follow_champion(self.champion())

    # The cycle

    def run_forever(self) -> None:
        """Run cycles until stopped; a failed one is followed by a pause that grows.

        A database that is away is waited for, with the workers kept warm.
        """
        failures = 0
        while not self._stop.is_set():
            try:
                cycle = self.run_cycle()
            except UnavailableError as error:  # the cycle goes on where the database has it
                logger.warning("the loop waits: %s", error)
                self._stop.wait(_RETRY_S)
                continue
            failures = failures + 1 if cycle.state == CycleState.FAILED else 0
            if failures:
                self._stop.wait(min(2.0**failures, 300.0))

    def run_cycle(self) -> CycleRow:
        """Take the cycle under way, or a new one, to its end, and return it.

        Returns early, in whatever state it is, when the loop is stopped.
        """
        self._close_last()
        cycle = self.cycles.resume_or_open(self.policy)
        log.cycle_id.set(cycle.cycle_id)
        self.observer.on_state(cycle)
        while not CycleState(cycle.state).terminal and not self._stop.is_set():
            before = cycle.state
            self.heads.follow()
            self._watch.look()
            self._advance(cycle)
            cycle = self.cycles.get(cycle.cycle_id)
            if cycle.state != before:
                logger.info("%s → %s %s", before, cycle.state, cycle.reason or "")
                self.observer.on_state(cycle)
        self._close_last()
        return cycle

    def _advance(self, cycle: CycleRow) -> None:
        """One step; errors are tried again a few times, then the cycle fails with the reason."""
        try:
            self._steps[CycleState(cycle.state)](cycle)
        except LostCycleError:
            raise
        except Exception as error:  # the edge of the loop: nothing may end it but a stop
            logger.exception("%s failed in %s", cycle.cycle_id, cycle.state)
            self._note_failure(cycle, error)

    def _note_failure(self, cycle: CycleRow, error: Exception) -> None:
        attempts = cycle.attempts + 1
        # What the data did to the update, trying again will do again.
        hopeless = isinstance(error, TrainingError)
        if attempts < self.settings.loop.max_attempts and not hopeless:
            self.cycles.note(cycle, attempts=attempts)
            self._stop.wait(self.settings.loop.poll_s * attempts)
            return
        reason = str(error) if isinstance(error, TacitError) else f"{type(error).__name__}: {error}"
        if cycle.release_id is not None:
            self._promotion.take_back(cycle, reason)
            return
        with self.database.session() as session:
            if cycle.batch_id is not None and hopeless:
                self.events.set_aside(session, [cycle.batch_id], reason="failed_cycle")
            elif cycle.batch_id is not None:
                self.events.release_batch(session, cycle.batch_id)
            self.cycles.move(session, cycle, CycleState.FAILED, reason=reason)

    def _collect(self, cycle: CycleRow) -> None:
        """Wait for enough feedback, then seal it into the batch of this cycle.

        A consolidation waits for nothing.
        """
        self.chronicle.follow_champion(self.champion())
        if cycle.purpose == "consolidation":
            self._learning.seal_consolidation(cycle)
            return
        if self.events.count_trainable(self.policy) < self.settings.loop.min_events:
            self._stop.wait(self.settings.loop.poll_s)
            return
        self._learning.seal(cycle)

    def _evaluate(self, cycle: CycleRow) -> None:
        if not self._learning.give_up_overtaken(cycle):
            self._assessment.evaluate(cycle)

    # What the steps need

    def _on_step(self, step: StepMetrics) -> None:
        self.observer.on_step(step)
        self._watch.look()

    def _on_evaluation(self, suite: str, done: int, total: int) -> None:
        self.observer.on_evaluation(suite, done, total)
        self._watch.look()

    def _close_last(self) -> None:
        """Close the MLflow run of the cycle that ended last, in this life of the loop or before."""
        ended = self.cycles.last_ended(self.policy)
        if ended is not None:
            made = ended.candidate_id and self.candidates.get(ended.candidate_id)
            self.chronicle.close(ended, made.weights if made else None)
            self.heads.follow(now=True)

    def _screen(self, stream: Stream) -> None:
        Consumer(self.database, stream, self.settings).run(self._stop)
        stream.close()
