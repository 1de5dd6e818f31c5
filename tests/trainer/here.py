"""A group of workers that is this process, where a test needs no Ray."""

from collections.abc import Iterator

from tacit.checkpoints import CheckpointStore
from tacit.config import TrainerSettings
from tacit.contracts import Digest
from trainer.progress import StepMetrics
from trainer.session import TrainingSession, UpdateJob
from trainer.update import PolicyTrainer


class Here:
    """A group of one, in this process."""

    world_size = 1
    processor = "abacus"
    fast_bf16 = False

    def __init__(self, store: CheckpointStore) -> None:
        self._session = TrainingSession(store)

    def try_reward(self, settings: TrainerSettings) -> None:
        """As a worker does."""
        self._session.try_reward(settings)

    def run(self, job: UpdateJob) -> Iterator[StepMetrics | Digest]:
        """The job."""
        yield from self._session.run(job)

    def stop(self) -> None:
        """Nothing to give back."""


class TrainerHere(PolicyTrainer):
    """``PolicyTrainer`` that starts no Ray."""

    def __init__(self, settings: TrainerSettings, store: CheckpointStore) -> None:
        super().__init__(settings, store, open_group=lambda _: Here(store))

    def start(self) -> None:
        """A group, if there is none."""
        if self._group is None:
            self._group = Here(self._store)
