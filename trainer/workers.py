"""The warm group of Ray actors that runs updates.

Starting a job costs ten seconds and more, a call to a warm actor milliseconds, so the actors stay,
each with the base model loaded. Rank 0 streams StepMetrics while it trains.
"""

import contextlib
import logging
import socket
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.placement_group import remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from tacit.checkpoints import CheckpointStore
from tacit.config import TrainerSettings
from tacit.contracts import Digest
from tacit.errors import PlacementError
from trainer.failures import explain
from trainer.placement import Request, place
from trainer.progress import StepMetrics

if TYPE_CHECKING:
    from trainer.session import UpdateJob

logger = logging.getLogger(__name__)

START_TIMEOUT_S = 300.0
"""For actors that have a place to import torch and to meet; imports take seconds on a busy CPU."""
COLLECTIVE_TIMEOUT_S = 600.0
"""How long a worker waits for another's gradient; covers one loading a large base more slowly."""
SETTLE_TIMEOUT_S = 30.0
"""How long the other workers get to end after one has failed."""


class PolicyWorker:
    """The actor: a TrainingSession behind Ray. torch is imported in the actor's process only."""

    def __init__(self, store: CheckpointStore, *, num_threads: int, device: str) -> None:
        from trainer.session import TrainingSession, configure_process

        configure_process(num_threads=num_threads, device=device)
        self._session = TrainingSession(store, device=device)
        self._device = device

    def meeting_point(self) -> str:
        """``host:port`` on this node where a group can meet."""
        host = ray.util.get_node_ip_address()
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.bind((host, 0))
            return f"{host}:{probe.getsockname()[1]}"

    def join(
        self, *, rank: int, world_size: int, address: str, timeout_s: float
    ) -> tuple[str, bool]:
        """Enter the data-parallel group.

        Returns the kind of processor that computes here, and whether it is fast at bfloat16.
        """
        from trainer.precision import has_fast_bf16
        from trainer.provenance import processor_kind

        self._session.join(rank=rank, world_size=world_size, address=address, timeout_s=timeout_s)
        return processor_kind(self._device), has_fast_bf16(self._device)

    def try_reward(self, settings: TrainerSettings) -> None:
        """See whether the reward that is configured works here. Raises ConfigError."""
        self._session.try_reward(settings)

    def lead(self, job: "UpdateJob") -> Iterator[StepMetrics | Digest]:
        """Run a job as rank 0, streaming."""
        yield from self._session.run(job)

    def follow(self, job: "UpdateJob") -> None:
        """Run a job as any other rank."""
        for _ in self._session.run(job):
            pass


class WorkerGroup:
    """As many actors as were asked for, joined into one data-parallel group."""

    def __init__(
        self,
        store: CheckpointStore,
        request: Request,
        *,
        placement_timeout_s: float,
    ) -> None:
        """Place, start and join the actors.

        Raises PlacementError when there is no room or the actors do not come up in time.
        """
        self.world_size = request.num_workers
        self.workers: list[Any] = []
        self.processor = ""
        self.fast_bf16 = False
        started = time.monotonic()
        self._placement = place(request, timeout_s=placement_timeout_s)
        try:
            self._start(CheckpointStore(store.root.resolve()), request)
        except BaseException:
            self.stop()
            raise
        logger.info("%d workers ready in %.1f s", self.world_size, time.monotonic() - started)

    def _start(self, store: CheckpointStore, request: Request) -> None:
        actor = ray.remote(PolicyWorker)
        for index in range(self.world_size):
            strategy = PlacementGroupSchedulingStrategy(
                self._placement, placement_group_bundle_index=index
            )
            options = actor.options(
                num_cpus=request.cpus_per_worker,
                num_gpus=request.gpus_per_worker,
                scheduling_strategy=strategy,
            )
            worker = options.remote(
                store,
                num_threads=max(1, int(request.cpus_per_worker)),
                device="cuda" if request.gpus_per_worker else "cpu",
            )
            self.workers.append(worker)
        self._join()

    def _join(self) -> None:
        try:
            address = ray.get(self.workers[0].meeting_point.remote(), timeout=START_TIMEOUT_S)
            joins = [
                worker.join.remote(
                    rank=rank,
                    world_size=self.world_size,
                    address=address,
                    timeout_s=COLLECTIVE_TIMEOUT_S,
                )
                for rank, worker in enumerate(self.workers)
            ]
            kinds, fast = zip(*ray.get(joins, timeout=START_TIMEOUT_S), strict=True)
            self.processor, self.fast_bf16 = "; ".join(sorted(set(kinds))), all(fast)
        except (RayError, GetTimeoutError) as error:
            raise PlacementError(
                f"{self.world_size} workers to start and to find each other within "
                f"{START_TIMEOUT_S:g} s",
                got=f"{type(error).__name__}: {error}",
                mend="See the worker logs in Ray's session folder.",
            ) from error

    def try_reward(self, settings: TrainerSettings) -> None:
        """See whether the reward that is configured works on a worker.

        Raises ConfigError if it does not, and what ``failures.explain`` tells.
        """
        try:
            ray.get(self.workers[0].try_reward.remote(settings))
        except RayError as error:
            raise explain([error]) from error

    def run(self, job: "UpdateJob") -> Iterator[StepMetrics | Digest]:
        """Run a job on all workers: StepMetrics while it trains, the checkpoint's digest last.

        Raises what ``failures.explain`` tells.
        """
        shared = ray.put(job)
        stream = self.workers[0].lead.options(num_returns="streaming").remote(shared)
        others = [worker.follow.remote(shared) for worker in self.workers[1:]]
        try:
            for reference in stream:
                yield ray.get(reference)
            ray.get(others)
        except RayError as error:
            raise explain([error, *self._settle(others)]) from error

    def _settle(self, others: list[Any]) -> list[RayError]:
        """Errors of the other workers' jobs, and of workers that no longer answer."""
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        errors: list[RayError] = []
        for reference in [*others, *(w.meeting_point.remote() for w in self.workers)]:
            try:
                ray.get(reference, timeout=max(0.1, deadline - time.monotonic()))
            except RayError as error:
                errors.append(error)
        return errors

    def stop(self) -> None:
        """Kill the actors and give their room back."""
        for worker in self.workers:
            with contextlib.suppress(RayError):
                ray.kill(worker)
        self.workers = []
        remove_placement_group(self._placement)
