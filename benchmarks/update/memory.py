"""Peak memory of a worker, with ten times the events in a batch over that with one.

Each size has fresh workers; the figure is that of the larger one of a group.
"""

import re
import tempfile
from pathlib import Path
from typing import Any

import ray

from benchmarks.update.feedback import mixed, replay
from tacit.checkpoints import CheckpointStore
from tacit.config import TrainerSettings
from tacit.contracts import utc_now
from tacit.demo.base import make_base
from tacit.demo.helpdesk import helpdesk_world
from tacit.start import base_cache
from trainer.replay import num_replay
from trainer.seal import seal_batch
from trainer.update import PolicyTrainer


def peak_mb(_: Any = None, *, status: Path = Path("/proc/self/status")) -> float:
    """Largest resident set of this process so far, in MB; needs Linux."""
    # ru_maxrss will not do: a child begins with its parent's.
    found = re.search(r"^VmHWM:\s*(\d+) kB$", status.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1_024 / 1e6


def peak_of_workers(num_events: int) -> float:
    """MB after an update of the demo policy, one epoch, with events of all kinds."""
    settings = TrainerSettings(num_epochs=1)
    with tempfile.TemporaryDirectory(prefix="tacit-memory-") as folder:
        store = CheckpointStore(Path(folder))
        base = make_base(helpdesk_world(), store, cache=base_cache())
        events = list(mixed(num_events))
        rehearsed = replay(num_replay(num_events, settings.replay.share))
        batch = seal_batch(
            events,
            policy="default",
            parent=base,
            replay=rehearsed,
            watermark={},
            sealed_at=utc_now(),
        )
        trainer = PolicyTrainer(settings, store)
        try:
            trainer.update(batch, events, rehearsed, on_step=lambda _: None)
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
