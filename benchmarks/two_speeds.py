"""What on-policy replay adds to an update, and what consolidation does, on the demo policy.

    python -m benchmarks.two_speeds

Each round draws replay for 256 corrections without and with the policy's own answers, and makes
the update on the same warm worker. ``on_policy_over_update`` is the time that the answers add over
that of the update, the median of the rounds; ``accepted`` the share of the answers that were right.
The adapter is then folded into the base, as it is and with the base in bfloat16, where
``kl_rounded`` and ``kl_mended`` are nats a token of replay before and after distillation.
"""

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from transformers import AutoModelForCausalLM

from benchmarks.results import report
from tacit.checkpoints import MANIFEST_NAME, CheckpointStore
from tacit.config import Settings, load_settings, with_overrides
from tacit.contracts import (
    Correction,
    Digest,
    FeedbackEvent,
    InlineInteraction,
    ScreenedEvent,
    utc_now,
)
from tacit.demo.base import make_base
from tacit.demo.helpdesk import helpdesk_world
from tacit.demo.world import install_world, prompt
from tacit.metrics import MetricName
from tacit.rehearsal import rehearse
from tacit.stages import Stages
from tacit.start import base_cache
from trainer.progress import TrainedPolicy
from trainer.replay import num_replay
from trainer.seal import seal_batch, seal_consolidation
from trainer.update import PolicyTrainer

NUM_EVENTS = 256
NUM_ROUNDS = 2
T = TypeVar("T")


def _events() -> list[ScreenedEvent]:
    events = []
    for number, utterance in enumerate(helpdesk_world().new_stream[:NUM_EVENTS]):
        said = InlineInteraction(prompt=prompt(utterance), completion="no idea")
        sent = FeedbackEvent(
            event_id=f"e-{number}",
            policy="default",
            source="bench",
            subject_id=f"u-{number}",
            occurred_at=utc_now(),
            interaction=said,
            feedback=Correction(completion=utterance.answer),
        )
        events.append(
            ScreenedEvent(
                event_key=f"bench/e-{number}",
                policy="default",
                event=sent,
                interaction=said,
                weight=1.0,
                cluster=f"{number:016x}",
            )
        )
    return events


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    started = time.perf_counter()
    return work(), time.perf_counter() - started


def _half(store: CheckpointStore, base: Digest, folder: Path) -> Digest:
    """``base`` in bfloat16."""
    files = shutil.copytree(store.path(base), folder / "half")
    (files / MANIFEST_NAME).unlink()
    model = AutoModelForCausalLM.from_pretrained(files, dtype=torch.bfloat16)
    for weights in files.glob("*.safetensors"):
        weights.unlink()
    model.save_pretrained(files)
    return store.put(files)


class _Bench:
    """A policy line with the demo's policy, and one warm worker."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stages = Stages(settings)
        self.store = self.stages.checkpoints
        self.base = make_base(helpdesk_world(), self.store, cache=base_cache())
        self.trainer = PolicyTrainer(settings.trainer, self.store)
        self.events = _events()

    def draw(self, champion: Digest, *, on_policy: bool) -> float:
        """Seconds to prepare the replay; keeps it."""
        share = self.settings.trainer.replay.on_policy_share if on_policy else 0.0
        self.stages.settings = with_overrides(
            self.settings, [f"trainer.replay.on_policy_share={share}"]
        )
        number = num_replay(NUM_EVENTS, self.settings.trainer.replay.share)
        drawn, seconds = _timed(lambda: rehearse(self.stages, champion, number=number, seed=0))
        self.replay = drawn.draw(number)
        return seconds

    def update(self, parent: Digest) -> TrainedPolicy:
        """An update of ``parent`` on all events."""
        batch = seal_batch(
            self.events,
            policy="default",
            parent=parent,
            replay=self.replay,
            watermark={},
            sealed_at=utc_now(),
        )
        return self.trainer.update(batch, self.events, self.replay, on_step=lambda _: None)

    def consolidate(self, adapter: Digest) -> list[float]:
        """Divergences on the way."""
        number = self.settings.trainer.consolidation.num_examples
        replay = rehearse(self.stages, adapter, number=number, seed=1).draw(number)
        batch = seal_consolidation(
            policy="default", parent=adapter, replay=replay, watermark={}, sealed_at=utc_now()
        )
        found: list[float] = []
        name = MetricName.KL_CONSOLIDATION.value
        self.trainer.update(
            batch, [], replay, on_step=lambda step: found.append(step.metrics[name])
        )
        return found


def main() -> None:
    """Measure, print, keep."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        overrides = [f"tracking.uri=sqlite:///{home}/mlflow.db", "trainer.num_workers=1"]
        settings = load_settings(home=home, overrides=overrides)
        install_world(helpdesk_world(), settings)
        bench = _Bench(settings)
        bench.trainer.start()
        bench.draw(bench.base, on_policy=False)
        bench.update(bench.base)  # the worker loads the base
        added, over = [], []
        for _ in range(NUM_ROUNDS):
            without = bench.draw(bench.base, on_policy=False)
            added.append(bench.draw(bench.base, on_policy=True) - without)
            trained, seconds = _timed(lambda: bench.update(bench.base))
            over.append(added[-1] / seconds)
        asked = round(len(bench.replay) * settings.trainer.replay.on_policy_share)
        accepted = sum(example.origin == "on_policy" for example in bench.replay)
        _, fold_s = _timed(lambda: bench.consolidate(trained.weights))
        half = _half(bench.store, bench.base, home)
        adapter = bench.update(half).weights
        kls, mend_s = _timed(lambda: bench.consolidate(adapter))
        bench.trainer.stop()
        bench.stages.database.dispose()
    report(
        "two_speeds",
        {
            "num_events": len(bench.events),
            "num_replay": len(bench.replay),
            "on_policy_s": statistics.median(added),
            "on_policy_over_update": statistics.median(over),
            "accepted": accepted / asked,
            "consolidate_float32_s": fold_s,
            "consolidate_bfloat16_s": mend_s,
            "kl_rounded": kls[0],
            "kl_mended": kls[-1],
        },
    )


if __name__ == "__main__":
    main()
