"""What a cycle costs on the embedded defaults: from events to a candidate checkpoint.

    python -m benchmarks.cycle

Ingests and screens feedback on generated tickets, then trains the demo policy on it twice with the
same warm workers. ``warm_over_gradient`` is the wall time of a warm update over that of its steps
alone; ``reproduced`` says whether both updates gave the same bytes.
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.results import report
from collector.consume import Consumer
from collector.ingest import Ingestor
from collector.store import EventStore
from collector.streams import open_stream
from tacit.checkpoints import CheckpointStore
from tacit.config import load_settings
from tacit.contracts import Correction, FeedbackEvent, InlineInteraction, utc_now
from tacit.database import Database
from tacit.demo.base import make_base
from tacit.demo.helpdesk import helpdesk_world
from tacit.demo.world import prompt
from tacit.start import base_cache
from trainer.seal import seal_batch
from trainer.update import PolicyTrainer, StepMetrics

NUM_EVENTS = 512
BATCH = 64


@contextmanager
def _timed(figures: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    figures[name] = time.perf_counter() - started


def _events() -> list[FeedbackEvent]:
    utterances = helpdesk_world().new_stream[: NUM_EVENTS * 2]
    return [
        FeedbackEvent(
            event_id=f"e-{number}",
            policy="default",
            source="bench",
            subject_id=f"u-{number % 400}",
            occurred_at=utc_now(),
            interaction=InlineInteraction(prompt=prompt(u), completion="no idea"),
            feedback=Correction(completion=u.answer),
        )
        for number, u in enumerate(utterances)
    ]


def main() -> None:
    """Measure, print, keep."""
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings(home=Path(folder))
        database = Database(settings.resolved_database_url)
        database.migrate()
        stream, events = open_stream(settings), _events()
        ingestor = Ingestor(database, stream, settings)
        with _timed(seconds, "ingest"):
            for start in range(0, len(events), BATCH):
                ingestor.accept(events[start : start + BATCH])
        with _timed(seconds, "screen"):
            num_screened = Consumer(database, stream, settings).drain()
        store = CheckpointStore(settings.checkpoints_path)
        base = make_base(helpdesk_world(), store, cache=base_cache())
        with database.session() as session:
            taken = EventStore(database).take(session, "default", limit=NUM_EVENTS)
        batch = seal_batch(
            taken, policy="default", parent=base, replay=[], watermark={}, sealed_at=utc_now()
        )
        trainer = PolicyTrainer(settings.trainer, store)
        ticks: list[float] = []

        def on_step(_: StepMetrics) -> None:
            ticks.append(time.perf_counter())

        with _timed(seconds, "start"):
            trainer.start()
        with _timed(seconds, "first"):
            first = trainer.update(batch, taken, [], on_step=on_step)
        ticks.clear()
        with _timed(seconds, "warm"):
            second = trainer.update(batch, taken, [], on_step=on_step)
        trainer.stop()
        steps_s = (ticks[-1] - ticks[0]) * len(ticks) / (len(ticks) - 1)
        stream.close()
        database.dispose()
    report(
        "cycle",
        {
            "ingested_per_s": len(events) / seconds["ingest"],
            "screened_per_s": num_screened / seconds["screen"],
            "worker_start_s": seconds["start"],
            "update_first_s": seconds["first"],
            "update_warm_s": seconds["warm"],
            "warm_over_gradient": seconds["warm"] / steps_s,
            "num_events": len(taken),
            "reproduced": first.weights == second.weights,
        },
    )


if __name__ == "__main__":
    main()
