"""One worker's side of updates: what runs inside a Ray actor, and in tests without Ray.

Input: an UpdateJob. Output: StepMetrics as they happen and the digest of the new checkpoint, which
rank 0 writes. The base model stays loaded between jobs.
"""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from tacit.checkpoints import CheckpointStore
from tacit.config import TrainerSettings
from tacit.contracts import Digest, ReplayExample, ScreenedEvent
from tacit.errors import TacitError
from trainer.checkpoint import OpenPolicy, PolicyOpener, save_policy
from trainer.collective import Collective, join
from trainer.distillation import Teacher, load_frozen, load_teacher
from trainer.examples import build_examples
from trainer.kernels import bound_kernel_caches
from trainer.memory import (
    UpdateTooLargeError,
    is_out_of_memory,
    keep_freed_memory,
)
from trainer.optimize import Optimization
from trainer.precision import is_bf16
from trainer.progress import StepMetrics
from trainer.recompute import recomputed
from trainer.scoring import CompletionScorer
from trainer.sharding import shard, whole_weights
from trainer.signal import require_signal

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class UpdateJob:
    """All that an update is a function of, beside world size and library versions."""

    parent: Digest
    """Checkpoint to start from; of a rebuild that is not the champion but the anchor."""
    events: tuple[ScreenedEvent, ...]
    replay: tuple[ReplayExample, ...]
    settings: TrainerSettings
    consolidates: bool = False
    """Fold the parent's adapter instead of learning from events; see consolidate.py."""


def configure_process(*, num_threads: int, device: str) -> None:
    """Set torch up for a process of its own: its share of the CPUs, the same bits every time."""
    torch.set_num_threads(num_threads)
    keep_freed_memory()
    bound_kernel_caches()
    if device == "cpu":
        torch.use_deterministic_algorithms(True)
        # Filling fresh memory guards against reading it before writing; it costs time.
        setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010


class TrainingSession:
    """Keeps a base model warm and runs one job after another."""

    def __init__(self, store: CheckpointStore, *, device: str = "cpu") -> None:
        self._store = store
        self._device = device
        self._opener = PolicyOpener(store, device=device)
        self._group = Collective()

    def join(self, *, rank: int, world_size: int, address: str, timeout_s: float) -> None:
        """Enter a data-parallel group that meets at ``address``."""
        self._group = join(
            rank=rank,
            world_size=world_size,
            address=address,
            timeout_s=timeout_s,
            device=self._device,
        )

    def try_reward(self, settings: TrainerSettings) -> None:
        """See whether the reward that is configured works. Raises ConfigError, NotFoundError."""
        from trainer.methods.trial import try_reward

        try_reward(settings.reward, store=self._store, device=self._device)

    def run(self, job: UpdateJob) -> Iterator[StepMetrics | Digest]:
        """Train; yields StepMetrics, and on rank 0 the new checkpoint's digest last.

        Raises TrainingError, UpdateTooLargeError when memory runs out, and NotFoundError or
        IntegrityError for a bad parent. Nothing is written in that case.
        """
        try:
            yield from self._update(job)
        except TacitError:
            # Every worker meets these at the same point, so the group stays whole.
            self._opener.forget()
            raise
        except BaseException as error:
            # The others may be waiting for this one's gradient; leaving makes them fail too.
            self._opener.forget()
            self._group.leave()
            if is_out_of_memory(error):
                raise UpdateTooLargeError(
                    "an update that fits into memory", got=str(error)
                ) from error
            raise

    def _update(self, job: UpdateJob) -> Iterator[StepMetrics | Digest]:
        if job.consolidates:
            self._opener.forget()  # the whole policy is about to be in memory, more than once
            if self._group.rank == 0:
                from trainer.consolidate import consolidate

                yield from consolidate(job, store=self._store, device=self._device)
            return
        if job.settings.method != "mixed":
            from trainer.methods import run_method

            yield from run_method(job, store=self._store, device=self._device)
            return
        policy = self._open(job)
        examples = build_examples(
            policy.tokenizer,
            job.events,
            job.replay,
            max_length=job.settings.max_length,
            critiques=True,
        )
        require_signal(examples, job.settings)
        with self._checkpointed(job, policy):
            yield from Optimization(
                policy,
                examples,
                settings=job.settings,
                group=self._group,
                teacher=self._teacher(job, policy),
                anchor=self._anchor(job, policy),
            ).run()
        yield from self._save(job, policy)

    def _open(self, job: UpdateJob) -> OpenPolicy:
        if not self._shards(job):
            return self._opener.open(job.parent, job.settings)
        self._opener.forget()
        # In the host's memory, where a policy fits that a GPU does not hold.
        policy = PolicyOpener(self._store, device="cpu").open(job.parent, job.settings)
        shard(policy, device=self._device)
        return policy

    def _save(self, job: UpdateJob, policy: OpenPolicy) -> Iterator[Digest]:
        """Rank 0 writes the checkpoint, which is whole in any case."""
        sharded = self._shards(job)
        weights = whole_weights(policy) if sharded else {}
        if self._group.rank == 0:
            if sharded:
                policy = PolicyOpener(self._store, device="cpu").open(job.parent, job.settings)
                policy.load(weights)
            yield save_policy(self._store, policy, parent=job.parent)
        if not sharded:
            self._opener.close(policy)

    def _shards(self, job: UpdateJob) -> bool:
        """One worker has nobody to share with."""
        return job.settings.sharding == "fsdp2" and self._group.world_size > 1

    def _checkpointed(
        self, job: UpdateJob, policy: OpenPolicy
    ) -> contextlib.AbstractContextManager[None]:
        if job.settings.gradient_checkpointing != "on":
            return contextlib.nullcontext()
        bf16 = is_bf16(job.settings.precision, torch.device(self._device))
        return recomputed(policy.model, bf16=bf16)

    def _anchor(self, job: UpdateJob, policy: OpenPolicy) -> CompletionScorer | None:
        """What replay is held to; None where that is the parent."""
        digest = job.settings.kl_anchor(job.parent)
        if digest in (None, job.parent):
            return None
        bf16 = is_bf16(job.settings.precision, torch.device(self._device))
        setting = "trainer.kl_reference"
        return load_frozen(self._store, digest, policy, setting=setting, bf16=bf16)

    def _teacher(self, job: UpdateJob, policy: OpenPolicy) -> Teacher | None:
        chosen = job.settings.distillation
        digest = chosen.teacher_of(job.parent)
        if digest is None:
            return None
        return load_teacher(self._store, digest, policy, temperature=chosen.temperature)
