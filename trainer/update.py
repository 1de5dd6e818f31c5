"""The update: from a sealed batch to a candidate checkpoint. Start reading here.

Input: a SealedBatch with its events and replay examples, and the parent it names in the checkpoint
store. Output: a TrainedPolicy whose ``weights`` stand in the store.

    seal.py        fixes what one update learns from; checked again before training
    replay.py      draws what is rehearsed against forgetting
    store.py       batches and candidates in the database
    placement.py   room on the Ray cluster, or a clear error
    workers.py     the warm group of actors; each runs a
    session.py     TrainingSession, which
    checkpoint.py    opens the parent with a LoRA adapter (or whole) and saves what came out,
    examples.py      turns feedback into token sequences with weights,
    batches.py       packs them into steps,
    scoring.py       gets logits at completion positions only,
    objective.py     holds every term of the loss with its paper, and
    optimize.py      takes the gradient steps, summed over workers by collective.py
    methods.py     TRL's SFT, DPO and KTO trainers in place of the mixed objective

Same batch, events, replay, settings and world size give the same digest on CPUs of one kind.
"""

import importlib.metadata
import logging
import platform
from collections import defaultdict
from collections.abc import Callable, Sequence

from tacit.checkpoints import CheckpointStore
from tacit.config import TrainerSettings
from tacit.contracts import Digest, ReplayExample, ScreenedEvent, SealedBatch
from tacit.errors import TrainingError
from trainer.placement import connect, resolve_request
from trainer.progress import StepMetrics, TrainedPolicy
from trainer.seal import verify_batch
from trainer.workers import WorkerFailedError, WorkerGroup, WorkerLostError

__all__ = ["PolicyTrainer", "StepMetrics", "TrainedPolicy"]

logger = logging.getLogger(__name__)

LIBRARIES = ("tacit", "torch", "transformers", "peft", "trl", "ray", "safetensors", "tokenizers")


class PolicyTrainer:
    """Runs updates one after another on a warm group of workers. Not for several threads."""

    def __init__(self, settings: TrainerSettings, store: CheckpointStore) -> None:
        self._settings = settings
        self._store = store
        self._group: WorkerGroup | None = None
        self._owns_ray = False

    def start(self) -> None:
        """Start Ray, unless it runs, and the workers; does nothing if they are up.

        Raises PlacementError.
        """
        if self._group is not None:
            return
        self._owns_ray = connect() or self._owns_ray
        settings = self._settings
        if settings.method != "mixed":
            settings = settings.model_copy(update={"num_workers": 1})
        self._group = WorkerGroup(
            self._store,
            resolve_request(settings),
            placement_timeout_s=settings.placement_timeout_s,
        )

    def stop(self) -> None:
        """Stop the workers, and Ray if it was started here."""
        if self._group is not None:
            self._group.stop()
            self._group = None
        if self._owns_ray:
            import ray

            ray.shutdown()
            self._owns_ray = False

    def update(
        self,
        batch: SealedBatch,
        events: Sequence[ScreenedEvent],
        replay: Sequence[ReplayExample],
        *,
        on_step: Callable[[StepMetrics], None],
    ) -> TrainedPolicy:
        """Train the batch's parent on its events and put the result into the store.

        ``on_step`` is called after each step, in this thread; steps count from 1 again after a lost
        worker. Raises IntegrityError when events or replay are not those of the batch or the parent
        is damaged, TrainingError when no candidate can come of it, PlacementError when there is no
        room. Nothing is put into the store then.
        """
        verify_batch(batch, events, replay)
        self._store.verify(batch.parent)
        for attempt in range(self._settings.max_restarts + 1):
            try:
                return self._attempt(batch, events, replay, on_step)
            except WorkerLostError as error:
                logger.warning("a worker was lost in attempt %d: %s", attempt + 1, error)
                self._drop_group()
            except WorkerFailedError:
                self._drop_group()
                raise
        raise TrainingError(
            f"workers that stay alive for {self._settings.max_restarts + 1} attempts",
            got="a lost worker each time",
            mend="Look for out-of-memory kills; trainer.max_restarts raises the limit.",
        )

    def _attempt(
        self,
        batch: SealedBatch,
        events: Sequence[ScreenedEvent],
        replay: Sequence[ReplayExample],
        on_step: Callable[[StepMetrics], None],
    ) -> TrainedPolicy:
        from trainer.session import UpdateJob  # imports torch, which start() may yet go without

        self.start()
        group = self._group
        assert group is not None
        job = UpdateJob(batch.parent, tuple(events), tuple(replay), self._settings)
        steps: list[StepMetrics] = []
        weights: Digest | None = None
        for item in group.run(job):
            if isinstance(item, StepMetrics):
                steps.append(item)
                on_step(item)
            else:
                weights = item
        if weights is None:
            raise TrainingError("a checkpoint from the first worker", got="none")
        return self._result(weights, steps, group.world_size)

    def _result(
        self, weights: Digest, steps: Sequence[StepMetrics], world_size: int
    ) -> TrainedPolicy:
        config = self._settings.model_copy(update={"num_workers": world_size})
        return TrainedPolicy(
            weights=weights,
            config=config.model_dump(mode="json"),
            seed=self._settings.seed,
            world_size=world_size,
            versions=library_versions(),
            metrics=_last_epoch(steps, self._settings.num_epochs),
        )

    def _drop_group(self) -> None:
        if self._group is not None:
            self._group.stop()
            self._group = None


def library_versions() -> dict[str, str]:
    """Versions of everything that takes part in an update."""
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {"python": platform.python_version(), **versions}


def _last_epoch(steps: Sequence[StepMetrics], num_epochs: int) -> dict[str, float]:
    """Mean of each metric over the last epoch's steps."""
    values: dict[str, list[float]] = defaultdict(list)
    for step in steps[-max(1, len(steps) // num_epochs) :]:
        for name, value in step.metrics.items():
            values[str(name)].append(value)
    return {name: sum(found) / len(found) for name, found in values.items()}
