"""Peak memory of a worker, with ten times the events in a batch over that with one.

Each size has fresh workers; the figure is that of the larger one of a group.
"""

import re
from pathlib import Path
from typing import Any

import ray

from benchmarks.update.demo import demo_batch, demo_store
from tacit.config import TrainerSettings
from trainer.update import PolicyTrainer


def peak_mb(_: Any = None, *, status: Path = Path("/proc/self/status")) -> float:
    """Largest resident set of this process so far, in MB; needs Linux."""
    # ru_maxrss will not do: a child begins with its parent's.
    found = re.search(r"^VmHWM:\s*(\d+) kB$", status.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1_024 / 1e6


def peak_of_workers(num_events: int) -> float:
    """MB after an update of the demo policy, one epoch, with events of all kinds."""
    with demo_store() as (store, parent):
        given = demo_batch(parent, num_events)
        trainer = PolicyTrainer(TrainerSettings(num_epochs=1), store)
        try:
            trainer.update(given.batch, given.events, given.replay, on_step=lambda _: None)
            group: Any = trainer._group
            peaks = ray.get([worker.__ray_call__.remote(peak_mb) for worker in group.workers])
        finally:
            trainer.stop()
    return max(peaks)


def memory(*, quick: bool) -> dict[str, float]:
    """512 and 5,120 events; a quarter of them if ``quick``."""
    num_events = 128 if quick else 512
    one, ten = peak_of_workers(num_events), peak_of_workers(10 * num_events)
    return {"peak_rss_ratio_10x": ten / one, "peak_rss_mb": one}
