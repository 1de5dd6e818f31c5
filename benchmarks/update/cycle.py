"""What a cycle costs on the embedded defaults, from feedback to a candidate in MLflow.

    python -m benchmarks.update.cycle HOME NUM_EVENTS

A first batch is sealed beforehand. A fresh process takes it up, which is the cold cycle: from the
start of that process to the candidate. The warm one follows in the same process, from the sealed
batch, and once more from the event that fills it. The gradient time is that of the steps alone,
without the pass of the reference. Choosing how much of the update to take is evaluation, whose
answers the report uses again; it is in the cycle's seconds, and apart from ``warm_overhead``.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import psutil

from benchmarks.update.feedback import corrections
from collector.consume import Consumer
from collector.ingest import Ingestor
from collector.streams import open_stream
from tacit.config import Settings, load_settings
from tacit.contracts import FeedbackEvent, VariantChoice
from tacit.cycles import CycleRow, CycleState
from tacit.learning import Learning
from tacit.loop import OnlineLoop
from tacit.start import first_policy
from trainer.progress import StepMetrics

INGEST_BATCH = 64
SPARE = 2
"""Times as many events are sent as are trained on: some are held out, some capped."""


def cycle(*, quick: bool) -> dict[str, float]:
    """512 events; a quarter of them if ``quick``."""
    num_events = 128 if quick else 512
    with tempfile.TemporaryDirectory(prefix="tacit-cycle-") as folder:
        home = Path(folder)
        bench = _Bench(_settings(home, num_events))
        bench.loop.begin(lambda: first_policy(bench.settings, bench.loop.checkpoints), by="bench")
        bench.send(list(corrections(SPARE * num_events)))
        bench.seal()
        bench.loop.database.dispose()
        command = [sys.executable, "-m", "benchmarks.update.cycle", folder, str(num_events)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _settings(home: Path, num_events: int) -> Settings:
    return load_settings(
        home=home,
        overrides=[
            f"tracking.uri=sqlite:///{home}/mlflow.db",
            f"loop.min_events={num_events}",
            f"loop.max_events={num_events}",
        ],
    )


class _Bench:
    """The loop of one policy line, a step at a time."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.loop = OnlineLoop(settings, screens=False)
        self.ticks: list[float] = []
        self.choosing_s = 0.0
        choose = self.loop.chooser.choose

        def timed(*arguments: Any, **options: Any) -> VariantChoice:
            started = time.perf_counter()
            try:
                return choose(*arguments, **options)
            finally:
                self.choosing_s = time.perf_counter() - started

        setattr(self.loop.chooser, "choose", timed)  # noqa: B010
        self._learning = Learning(
            self.loop, on_step=self._tick, on_evaluation=lambda suite, done, total: None
        )

    def _tick(self, _: StepMetrics) -> None:
        self.ticks.append(time.perf_counter())

    def send(self, events: list[FeedbackEvent]) -> None:
        """Ingest and screen."""
        stream = open_stream(self.settings)
        rest = iter(events)
        with Ingestor(self.loop.database, stream, self.settings) as ingestor:
            while chunk := list(islice(rest, INGEST_BATCH)):
                ingestor.accept(chunk)
        Consumer(self.loop.database, stream, self.settings).drain()
        stream.close()

    def seal(self) -> None:
        """A batch for the cycle under way."""
        self._learning.seal(self._cycle())

    def train(self) -> None:
        """From the sealed batch to the registered candidate; the cycle ends there."""
        self.ticks.clear()
        self._learning.train(self._cycle())

    def end(self) -> None:
        """Reject the candidate, so that the next cycle begins where this one did."""
        cycle = self._cycle()
        with self.loop.database.session() as session:
            self.loop.cycles.move(session, cycle, CycleState.REJECTED, reason="a benchmark")

    def gradient_s(self) -> float:
        """Of all steps; the first is not timed, it takes as long as the others."""
        return (self.ticks[-1] - self.ticks[0]) * len(self.ticks) / (len(self.ticks) - 1)

    def _cycle(self) -> CycleRow:
        return self.loop.cycles.resume_or_open(self.loop.policy)


def main() -> None:
    """The measured process."""
    home, num_events = Path(sys.argv[1]), int(sys.argv[2])
    bench = _Bench(_settings(home, num_events))
    bench.loop.trainer.start()
    bench.train()
    cold_s = time.time() - psutil.Process(os.getpid()).create_time()
    bench.end()
    more = list(corrections(2 * SPARE * num_events))[SPARE * num_events :]
    bench.send(more[:-1])
    started = time.perf_counter()
    bench.send(more[-1:])
    bench.seal()
    sealed = time.perf_counter()
    bench.train()
    ended = time.perf_counter()
    bench.loop.trainer.stop()
    warm_s, gradient_s = ended - sealed, bench.gradient_s()
    figures = {
        "warm_overhead": (warm_s - bench.choosing_s) / gradient_s,
        "choosing_over_gradient": bench.choosing_s / gradient_s,
        "cold_vs_warm": cold_s / warm_s,
        "event_to_candidate_s": ended - started,
        "warm_cycle_s": warm_s,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
