"""The update: from a sealed batch to a candidate checkpoint. Start reading here.

Input: a SealedBatch with its events and replay examples, and the parent it names in the checkpoint
store. Output: a TrainedPolicy whose ``weights`` stand in the store.

    seal.py        fixes what one update learns from; checked again before training
    replay.py      draws what is rehearsed against forgetting
    doubts.py      finds feedback that other feedback contradicts, before either, and
    inferred.py    what questions without an answer that stands were about, by voices.py
    store.py       batches and candidates in the database
    placement.py   room on the Ray cluster, or a clear error
    workers.py     the warm group of actors (group.py, and failures.py when one fails); each runs a
    session.py     TrainingSession, which
    checkpoint.py    opens the parent with a LoRA adapter (or whole) and saves what came out,
    examples.py      turns feedback into token sequences with weights (signal.py: any?), with
      rewards.py       what an outcome or a rating is worth,
      behaviour.py     what the policy that answered thought of its answer, and
      hindsight.py     what a teacher reads that the student does not,
    batches.py       plans steps of sequences.py and packing.py,
    scoring.py       gets logits at completion positions only,
    distillation.py  loads a frozen teacher, where one is asked for,
    objective.py     weighs the terms that stand, each with its paper, in losses.py,
    references.py    keeps what the parent said, on disk where it is much,
    restraint.py     holds back what replay needs (ewc.py, sparse.py) by fisher.py,
    precision.py     multiplies matrices in bfloat16 where that is fast,
    kernels.py       keeps their shapes few and what is compiled for them,
    recompute.py     computes layers again where memory is short,
    sharding.py      shares layers out over GPUs, and
    optimize.py      takes the gradient steps on weights.py, summed over workers by collective.py
    memory.py      what is tried next when memory runs out
    consolidate.py folds a parent's adapter into the weights under it
    interpolate.py variants between parent and trained policy
    reproduce.py   rebuilds a candidate from what is recorded of it
    methods/       TRL's trainers, and rationales, in place of the mixed objective
    pinning.py     says in the settings which bytes a reward model had

Same batch, events, replay, settings and world size give the same digest on CPUs of one kind.
"""

import logging
import time
from collections.abc import Callable, Sequence

from tacit.checkpoints import CheckpointStore
from tacit.cluster import connect
from tacit.config import TrainerSettings
from tacit.contracts import Digest, ReplayExample, ScreenedEvent, SealedBatch
from tacit.errors import PlacementError, TrainingError
from trainer.cost import cost_of
from trainer.group import Group, WorkerFailedError, WorkerLostError
from trainer.memory import UpdateTooLargeError, lighter
from trainer.pinning import pinned
from trainer.placement import Request, resolve_request
from trainer.progress import StepMetrics, TrainedPolicy, last_epoch, marked
from trainer.provenance import PROCESSOR, library_versions
from trainer.seal import verify_batch
from trainer.workers import WorkerGroup

__all__ = ["PolicyTrainer", "StepMetrics", "TrainedPolicy"]

logger = logging.getLogger(__name__)


class PolicyTrainer:
    """Runs updates one after another on a warm group of workers. Not for several threads."""

    def __init__(
        self,
        settings: TrainerSettings,
        store: CheckpointStore,
        *,
        open_group: Callable[[Request], Group] | None = None,
        local_cpus: int | None = None,
    ) -> None:
        """``open_group`` replaces Ray's actors; ``local_cpus`` is that of ``cluster.connect``."""
        self._settings = settings
        self._store = store
        self._open_group = open_group or self._open_workers
        self._local_cpus = local_cpus
        self._group: Group | None = None
        self._request: Request | None = None
        self._owns_ray = False

    def start(self) -> None:
        """Start Ray, unless it runs, and the workers; does nothing if they are up.

        Workers that replace lost ones are as many, so that the update ends in the same weights;
        fewer only if it was left to the cluster and the room does not come back.
        Raises PlacementError, and ConfigError when the reward that is configured does not work.
        """
        if self._group is not None:
            return
        self._owns_ray = connect(local_cpus=self._local_cpus) or self._owns_ray
        try:
            self._request = self._request or self._resolve()
            self._group = self._open_group(self._request)
        except PlacementError:
            smaller = self._resolve()
            if smaller == self._request:
                raise
            logger.warning("no more %s; going on with %s", self._request, smaller)
            self._request = smaller
            self._group = self._open_group(smaller)
        self._try_reward(self._group)

    def _try_reward(self, group: Group) -> None:
        """So that what is wrong with it is known before feedback is collected for it."""
        if not self._settings.samples_are_rewarded:
            return
        try:
            group.try_reward(pinned(self._settings, self._store))
        except BaseException:
            self.stop()
            raise

    def _resolve(self) -> Request:
        settings = self._settings
        if settings.method != "mixed":
            settings = settings.model_copy(update={"num_workers": 1})
        return resolve_request(settings)

    def _open_workers(self, request: Request) -> Group:
        return WorkerGroup(
            self._store, request, placement_timeout_s=self._settings.placement_timeout_s
        )

    def stop(self) -> None:
        """Stop the workers, and Ray if it was started here."""
        self._drop_group()
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
        anchor: Digest | None = None,
    ) -> TrainedPolicy:
        """Train the batch's start on its events, or consolidate it, and store the result.

        ``anchor`` is the line's frozen anchor, for settings that refer to it.

        ``on_step`` is called after each step, in this thread; steps count from 1 again after a lost
        worker or when memory ran out. Raises IntegrityError when events or replay are not those of
        the batch or the start is damaged, TrainingError when no candidate can come of it,
        ConfigError when the reward that is configured does not work, PlacementError when there is
        no room. No checkpoint is put into the store then.
        """
        verify_batch(batch, events, replay)
        start = batch.trained_from
        self._store.verify(start)
        settings, num_lost = pinned(self._settings, self._store), 0
        if batch.start is not None:
            settings = settings.of_rebuild()
        kept = settings.kl_anchor(start, anchor)
        if kept not in (None, start):
            settings = settings.model_copy(update={"kl_reference": kept})
        for other in (settings.distillation.teacher_of(start), kept):
            if other not in (None, start):
                self._store.verify(other)
        while num_lost <= self._settings.max_restarts:
            try:
                return self._attempt(batch, events, replay, settings, on_step)
            except WorkerLostError as error:
                num_lost += 1
                logger.warning("a worker was lost, %d so far: %s", num_lost, error)
                self._drop_group()
            except UpdateTooLargeError as error:
                self._drop_group()
                settings = lighter(settings, error)
            except WorkerFailedError:
                self._drop_group()
                raise
        raise TrainingError(
            f"workers that stay alive for {num_lost} attempts",
            got="a lost worker each time",
            mend="Look for out-of-memory kills; trainer.max_restarts raises the limit.",
        )

    def _attempt(
        self,
        batch: SealedBatch,
        events: Sequence[ScreenedEvent],
        replay: Sequence[ReplayExample],
        settings: TrainerSettings,
        on_step: Callable[[StepMetrics], None],
    ) -> TrainedPolicy:
        # Both import torch, which start() may yet go without.
        from trainer.precision import resolve_precision
        from trainer.session import UpdateJob

        self.start()
        group = self._group
        assert group is not None
        precision = resolve_precision(settings.precision, fast_bf16=group.fast_bf16)
        checkpointing = "on" if settings.gradient_checkpointing == "on" else "off"
        resolved = {"precision": precision, "gradient_checkpointing": checkpointing}
        settings = settings.model_copy(update=resolved)
        job = UpdateJob(
            batch.trained_from,
            tuple(events),
            tuple(replay),
            settings,
            consolidates=batch.purpose == "consolidation",
        )
        steps: list[StepMetrics] = []
        weights: Digest | None = None
        started = time.monotonic()
        for item in group.run(job):
            if isinstance(item, StepMetrics):
                steps.append(marked(item, settings, asked=self._settings))
                on_step(steps[-1])
            else:
                weights = item
        if weights is None:
            raise TrainingError("a checkpoint from the first worker", got="none")
        config = settings.model_copy(update={"num_workers": group.world_size})
        # The last pass of a consolidation is what was kept.
        num_epochs = len(steps) if job.consolidates else settings.num_epochs
        cost = cost_of(steps, seconds=time.monotonic() - started)
        return TrainedPolicy(
            weights=weights,
            config=config.model_dump(mode="json"),
            seed=settings.seed,
            world_size=group.world_size,
            versions={**library_versions(), PROCESSOR: group.processor},
            metrics=last_epoch(steps, num_epochs=max(1, num_epochs)) | cost,
        )

    def _drop_group(self) -> None:
        if self._group is not None:
            self._group.stop()
            self._group = None
