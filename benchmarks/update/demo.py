"""Updates of the demo policy on generated feedback, for what needs no whole cycle."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.update.feedback import mixed, replay
from tacit.checkpoints import CheckpointStore
from tacit.config import TrainerSettings
from tacit.contracts import Digest, ReplayExample, ScreenedEvent, SealedBatch, utc_now
from tacit.demo.base import make_base
from tacit.demo.helpdesk import helpdesk_world
from tacit.start import base_cache
from trainer.replay import num_replay
from trainer.seal import seal_batch


class DemoBatch(NamedTuple):
    """What an update of the demo policy is given."""

    batch: SealedBatch
    events: list[ScreenedEvent]
    replay: list[ReplayExample]


@contextmanager
def demo_store() -> Iterator[tuple[CheckpointStore, Digest]]:
    """A store for a while, with the demo policy in it."""
    with tempfile.TemporaryDirectory(prefix="tacit-update-") as folder:
        store = CheckpointStore(Path(folder))
        yield store, make_base(helpdesk_world(), store, cache=base_cache())


def demo_batch(parent: Digest, num_events: int) -> DemoBatch:
    """Events of all kinds, with replay as by default."""
    return sealed(parent, list(mixed(num_events)))


def sealed(parent: Digest, events: list[ScreenedEvent]) -> DemoBatch:
    """``events`` with replay as by default."""
    rehearsed = replay(num_replay(len(events), TrainerSettings().replay.share))
    batch = seal_batch(
        events,
        policy="default",
        parent=parent,
        replay=rehearsed,
        watermark={},
        sealed_at=utc_now(),
    )
    return DemoBatch(batch, events, rehearsed)
