"""A loop that lives again and again, in a process each, and kills itself where it is told to.

    python -m tests.integration.crashing_loop HOME WHERE [HOME WHERE]...

WHERE is a state (killed with SIGKILL on reaching it), ``mid-training``, ``mid-evaluation``, or
``end`` for a life without a crash. A reviewer of its own approves what waits. Prints how each life
ended: the number of the signal, or the last state. All are forked from one process, which imports
what takes seconds.
"""

import os
import signal
import sys
import threading
from pathlib import Path

from tacit.config import Settings, load_settings
from tacit.contracts import DecisionOutcome
from tacit.cycles import CycleRow, CycleState
from tacit.errors import ConflictError
from tacit.loop import LoopObserver, OnlineLoop
from tests.builders import tiny_checkpoint
from trainer.update import StepMetrics


class Crash(LoopObserver):
    """Kills the process at one place."""

    def __init__(self, where: str) -> None:
        self._where = where

    def on_state(self, cycle: CycleRow) -> None:
        """Dies on reaching the state."""
        self._at(cycle.state)

    def on_step(self, step: StepMetrics) -> None:
        """Dies in the second step."""
        if step.step == 2:
            self._at("mid-training")

    def on_evaluation(self, suite: str, done: int, total: int) -> None:
        """Dies at the first sign of evaluation."""
        self._at("mid-evaluation")

    def _at(self, where: str) -> None:
        if where == self._where:
            os.kill(os.getpid(), signal.SIGKILL)


def crash_settings(home: Path) -> Settings:
    """A loop that starts a cycle at eight events, with MLflow's own files in ``home``."""
    return load_settings(
        home=home,
        overrides=[
            f"tracking.uri=sqlite:///{home}/mlflow.db",
            f"gatekeeper.gate_policy_path={home}/gate.yaml",
            "loop.min_events=8",
            "loop.poll_s=0.05",
            "evaluator.min_holdout_items=1",
            "trainer.num_workers=1",
            "trainer.num_epochs=2",
            "trainer.batch_size=4",
            "trainer.learning_rate=0.001",
        ],
    )


def _approve(
    loop: OnlineLoop,
    done: threading.Event,
    outcome: DecisionOutcome = DecisionOutcome.APPROVED,
) -> None:
    while not done.wait(0.05):
        cycle = loop.cycles.latest(loop.policy)
        if cycle is None or cycle.state != CycleState.AWAITING_DECISION:
            continue
        try:
            loop.gatekeeper.decide(
                str(cycle.candidate_id), outcome, by="ada", reason="she looked at it"
            )
        except ConflictError:
            continue  # decided in an earlier life


def _trains(loop: OnlineLoop, where: str) -> bool:
    if where in {CycleState.COLLECTING, CycleState.TRAINING}:
        return False
    cycle = loop.cycles.latest(loop.policy)
    return cycle is None or cycle.state == CycleState.TRAINING


def _live(home: Path, where: str) -> None:
    """One cycle to its end, or to the crash."""
    os.chdir(home)  # where MLflow without a server puts artifacts
    loop = OnlineLoop(crash_settings(home), observer=Crash(where))
    if not _trains(loop, where):
        loop.trainer.start = lambda: None  # type: ignore[method-assign]  # Ray takes seconds
    with loop:
        loop.begin(lambda: tiny_checkpoint(loop.checkpoints), by="test")
        done = threading.Event()
        if where != CycleState.AWAITING_DECISION:
            threading.Thread(target=_approve, args=(loop, done), daemon=True).start()
        cycle = loop.run_cycle()
        done.set()
    _tell(f"{cycle.state} {cycle.reason or ''}")


def _tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """All lives, one after the other."""
    homes, places = sys.argv[1::2], sys.argv[2::2]
    for home, where in zip(homes, places, strict=True):
        child = os.fork()
        if not child:
            _live(Path(home), where)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            _tell(str(os.WTERMSIG(status)))


if __name__ == "__main__":
    main()
