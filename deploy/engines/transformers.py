"""The embedded engine: ``transformers`` on this machine, with continuous batching.

One worker thread steps the running batch; requests join it between two steps and leave it as soon
as they are done. A swap begins a batch of the new policy beside that of the old, which ends when
its last request is answered. Loading happens on the caller's thread, so that the old policy answers
until the new one is warm; for that moment both are in memory.
"""

import logging
import threading
from collections import deque
from collections.abc import Sequence

import torch

from deploy.engines.base import GenerationRequest, QueueFullError, Ticket
from deploy.engines.batch import RunningBatch
from deploy.engines.bind import bind
from deploy.engines.row import Row
from tacit.checkpoints import CheckpointStore
from tacit.contracts import Digest, Message, SamplingParameters
from tacit.errors import UnavailableError
from tacit.policies import Policy, load_policy

logger = logging.getLogger(__name__)

_WARM_UP = GenerationRequest(
    prompt=(Message(role="user", content="warm up"),), sampling=SamplingParameters(max_tokens=2)
)


class TransformersEngine:
    """An :class:`deploy.engines.base.Engine` over ``AutoModelForCausalLM``."""

    def __init__(
        self,
        store: CheckpointStore,
        *,
        max_batch_size: int,
        max_queue: int,
        device: str = "auto",
    ) -> None:
        self._store = store
        self._max_batch_size = max_batch_size
        self._max_queue = max_queue
        self._device = _resolve(device)
        self._serving: Policy | None = None
        self._waiting: deque[Row] = deque()
        self._batches: list[RunningBatch] = []
        self._changed = threading.Condition()
        self._closed = False
        self._worker = threading.Thread(target=self._run, name="engine", daemon=True)

    @property
    def weights(self) -> Digest | None:
        """Checkpoint that new requests are bound to."""
        serving = self._serving
        return None if serving is None else serving.digest

    def start(self) -> None:
        """Begin to answer."""
        self._worker.start()

    def load(self, weights: Digest) -> None:
        """Load, warm up, swap. Raises NotFoundError, IntegrityError, or what the model raises."""
        policy = load_policy(self._store, weights, device=self._device)
        _warm_up(policy)
        with self._changed:
            self._serving = policy
        logger.info("new requests are answered by %s", weights)

    def submit(self, requests: Sequence[GenerationRequest]) -> list[Ticket]:
        """Queue requests, all bound to the policy that serves now."""
        policy = self._serving
        if policy is None:
            raise UnavailableError(
                "a policy to answer with",
                got="none loaded yet",
                mend="GET /readyz says why; `tacit status` shows the releases.",
            )
        rows = [_bind(request, policy) for request in requests]
        with self._changed:
            self._check_room(len(rows))
            self._waiting.extend(rows)
            self._changed.notify()
        return [row.ticket for row in rows]

    def close(self) -> None:
        """Stop once the requests that run are answered; what still waits fails."""
        with self._changed:
            self._closed = True
            waiting = list(self._waiting)
            self._waiting.clear()
            self._changed.notify()
        for row in waiting:
            row.fail(UnavailableError("a server that runs", got="one that is shutting down"))
        if self._worker.is_alive():
            self._worker.join()

    def _check_room(self, num_new: int) -> None:
        if self._closed:
            raise UnavailableError("a server that runs", got="one that is shutting down")
        if len(self._waiting) + num_new > self._max_queue:
            raise QueueFullError(
                f"at most {self._max_queue} waiting requests",
                got=f"{len(self._waiting)} waiting and {num_new} more",
                mend="Try again in a moment; deploy.max_queue sets the limit.",
            )

    def _run(self) -> None:
        while self._wait_for_work():
            self._advance_all()

    def _wait_for_work(self) -> bool:
        """Whether there is anything to do; there is a batch for every row that waits then."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._batches or self._closed)
            policies = {id(row.policy): row.policy for row in self._waiting}
        open_for = {id(batch.policy) for batch in self._batches}
        self._batches += [
            RunningBatch(policy, max_size=self._max_batch_size)
            for key, policy in policies.items()
            if key not in open_for
        ]
        return bool(self._batches)

    def _advance_all(self) -> None:
        # A function of its own: while the worker waits, no name may keep an old policy alive.
        for batch in self._batches:
            self._advance(batch)
        self._batches = [batch for batch in self._batches if batch.rows]

    def _advance(self, batch: RunningBatch) -> None:
        try:
            if batch.rows:
                batch.step()
            joining = self._take(batch)
            if joining:
                batch.admit(joining)
        except Exception as error:  # whatever a model raises, the requests must hear of it
            logger.exception("a batch of %s requests failed", len(batch.rows))
            batch.fail(error)

    def _take(self, batch: RunningBatch) -> list[Row]:
        """The rows that join ``batch`` now, first come first served."""
        with self._changed:
            if not self._waiting:
                return []
            same = [row for row in self._waiting if row.policy is batch.policy]
            taken = batch.take_from(same)
            keys = {id(row) for row in taken}
            self._waiting = deque(row for row in self._waiting if id(row) not in keys)
        return [row for row in taken if row.ticket.future.set_running_or_notify_cancel()]


def _bind(request: GenerationRequest, policy: Policy) -> Row:
    context: int | None = getattr(policy.model.config, "max_position_embeddings", None)
    return bind(request, policy, context=context)


def _warm_up(policy: Policy) -> None:
    batch = RunningBatch(policy, max_size=1)
    row = _bind(_WARM_UP, policy)
    batch.admit([row])
    while batch.rows:
        batch.step()
    row.ticket.future.result(timeout=0)


def _resolve(device: str) -> str:
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"
