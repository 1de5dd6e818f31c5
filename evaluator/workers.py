"""Warm Ray workers that answer suites: each holds one policy and takes a batch at a time.

They reserve no CPU, since an evaluation never runs beside the training of its own cycle, whose idle
workers would keep it waiting for ever. A worker that dies is replaced and its batch asked again, so
a suite goes on; what is asked is cut into batches before anybody is asked, so answers do not depend
on how many workers there are.
"""

import contextlib
import logging
import os
import queue
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

from evaluator.evaluate import open_verified
from evaluator.questions import Generator
from evaluator.remote import RemotePolicy
from tacit.checkpoints import CheckpointStore
from tacit.cluster import LOST, connect
from tacit.config import EvaluatorSettings
from tacit.contracts import Digest
from tacit.errors import EvaluationError, PlacementError, TacitError

logger = logging.getLogger(__name__)

START_TIMEOUT_S = 300.0
"""For a worker to import torch, which takes seconds on a busy CPU."""
MAX_ATTEMPTS = 3
"""How often a batch is asked whose worker dies."""

Open = Callable[[CheckpointStore, Digest, str], Generator]
"""Loads a policy on a device."""


class PolicyWorker:
    """The actor. Torch is imported in its process only."""

    def __init__(
        self, store: CheckpointStore, open_policy: Open, *, num_threads: int, device: str
    ) -> None:
        import torch

        torch.set_num_threads(num_threads)
        self._store, self._open, self._device = store, open_policy, device
        self._held: tuple[Digest, Generator] | None = None

    def ready(self) -> bool:
        """Answers once the worker can be asked."""
        return True

    def ask(self, weights: Digest, method: str, *args: Any, **options: Any) -> Any:
        """What a method of the policy, by its dotted name, returns."""
        if self._held is None or self._held[0] != weights:
            self._held = None
            self._held = (weights, self._open(self._store, weights, self._device))
        return attrgetter(method)(self._held[1])(*args, **options)


class WorkerPool:
    """As many workers as were asked for, started when they are first needed."""

    def __init__(
        self,
        store: CheckpointStore,
        *,
        num_workers: int,
        gpus_per_worker: float,
        open_policy: Open,
    ) -> None:
        self.num_workers = num_workers
        self._store = CheckpointStore(store.root.resolve())
        self._gpus = gpus_per_worker
        self._open_policy = open_policy
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._started = self._owns_ray = False

    def open(self, weights: Digest) -> Generator:
        """A policy whose answers come from the workers. Raises PlacementError."""
        self.start()
        return RemotePolicy(partial(self.ask, weights), num_at_once=self.num_workers)

    def start(self) -> None:
        """Start Ray, unless it runs, and the workers; does nothing if they are up.

        Raises PlacementError.
        """
        if self._started:
            return
        self._owns_ray = connect() or self._owns_ray
        workers = [self._new_worker() for _ in range(self.num_workers)]
        for worker in workers:
            self._await(worker)
            self._free.put(worker)
        self._started = True

    def stop(self) -> None:
        """Stop the workers, and Ray if it was started here. Nobody may be asking."""
        while self._started and not self._free.empty():
            with contextlib.suppress(RayError):
                ray.kill(self._free.get())
        self._started = False
        if self._owns_ray:
            ray.shutdown()
            self._owns_ray = False

    def ask(self, weights: Digest, method: str, *args: Any, **options: Any) -> Any:
        """What the policy's method returns, from the next worker that is free.

        Raises what the method raises, EvaluationError when workers keep dying of it and
        PlacementError when one that died cannot be replaced.
        """
        for attempt in range(1, MAX_ATTEMPTS + 1):
            worker = self._free.get()
            try:
                answer = ray.get(worker.ask.remote(weights, method, *args, **options))
            except RayTaskError as error:
                self._free.put(worker)
                cause = error.cause
                if isinstance(cause, TacitError):
                    raise cause from error
                raise EvaluationError(
                    "a policy that answers", got=f"{type(cause).__name__}: {cause}"
                ) from error
            except (*LOST, OutOfMemoryError) as error:
                logger.warning("an evaluation worker died, attempt %d: %s", attempt, error)
                self._free.put(self._replacement(worker))
            else:
                self._free.put(worker)
                return answer
        raise EvaluationError(
            f"evaluation workers that stay alive for {MAX_ATTEMPTS} attempts",
            got="one that died each time",
            mend="Look for out-of-memory kills; a smaller evaluator.batch_size needs less.",
        )

    def _replacement(self, worker: Any) -> Any:
        """A new worker, or the dead one where none can be had: the next to ask it tries again."""
        with contextlib.suppress(RayError):
            ray.kill(worker)
        new = self._new_worker()
        try:
            self._await(new)
        except PlacementError:
            self._free.put(new)
            raise
        return new

    def _new_worker(self) -> Any:
        options: dict[str, Any] = {"num_cpus": 0, "scheduling_strategy": "SPREAD"}
        if self._gpus:
            options["num_gpus"] = self._gpus
        return (
            ray.remote(PolicyWorker)
            .options(**options)
            .remote(
                self._store,
                self._open_policy,
                num_threads=max(1, (os.cpu_count() or 1) // self.num_workers),
                device="cuda" if self._gpus else "cpu",
            )
        )

    def _await(self, worker: Any) -> None:
        try:
            ray.get(worker.ready.remote(), timeout=START_TIMEOUT_S)
        except RayError as error:
            gpus = f" with {self._gpus:g} GPUs" if self._gpus else ""
            raise PlacementError(
                f"an evaluation worker{gpus} to start within {START_TIMEOUT_S:g} s",
                got=f"{type(error).__name__}: {error}",
                mend="Lower evaluator.num_workers or evaluator.gpus_per_worker, or add nodes.",
            ) from error


def open_workers(settings: EvaluatorSettings, store: CheckpointStore) -> WorkerPool | None:
    """The pool of ``settings``, not yet started; None where suites are answered in this process."""
    if not settings.num_workers:
        return None
    return WorkerPool(
        store,
        num_workers=settings.num_workers,
        gpus_per_worker=settings.gpus_per_worker,
        open_policy=open_verified,
    )
