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

from deploy.engines.base import GenerationRequest, NotLoadedError, QueueFullError, Ticket, num_users
from deploy.engines.batch import RunningBatch
from deploy.engines.bind import bind
from deploy.engines.row import Row
from deploy.engines.threads import num_threads, running_on
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
        self._num_cores = torch.get_num_threads()
        self._serving: Policy | None = None
        self._beside: Policy | None = None
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

    @property
    def beside(self) -> Digest | None:
        """Checkpoint that only requests which name it are bound to."""
        beside = self._beside
        return None if beside is None else beside.digest

    def start(self) -> None:
        """Begin to answer."""
        self._worker.start()

    def load(self, weights: Digest) -> None:
        """Load, warm up, swap. Raises NotFoundError, IntegrityError, or what the model raises."""
        if weights != self.beside:
            self.load_beside(weights)
        with self._changed:
            self._serving, self._beside = self._beside, None
        logger.info("new requests are answered by %s", weights)

    def load_beside(self, weights: Digest | None) -> None:
        """Load and warm up a second policy, or drop it. Raises as ``load`` does."""
        self._beside = None  # first: three would be in memory else
        if weights is not None:
            self._beside = self._warm(weights)

    def submit(
        self, requests: Sequence[GenerationRequest], *, weights: Digest | None = None
    ) -> list[Ticket]:
        """Queue requests, all bound to the policy that serves now, or to that with ``weights``."""
        policy = self._policy(weights)
        rows = [_bind(request, policy) for request in requests]
        with self._changed:
            self._check_room(num_users(requests))
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

    def _warm(self, weights: Digest) -> Policy:
        policy = load_policy(self._store, weights, device=self._device)
        with running_on(self._num_threads(policy)):
            _warm_up(policy)
        return policy

    def _num_threads(self, policy: Policy) -> int:
        return num_threads(policy.num_weights, available=self._num_cores)

    def _policy(self, weights: Digest | None) -> Policy:
        with self._changed:
            serving, beside = self._serving, self._beside
        if serving is None:
            raise UnavailableError(
                "a policy to answer with",
                got="none loaded yet",
                mend="GET /readyz says why; `tacit status` shows the releases.",
            )
        for policy in (serving, beside):
            if policy is not None and weights in (None, policy.digest):
                return policy
        raise NotLoadedError("a checkpoint that is loaded", got=str(weights))

    def _check_room(self, num_new: int) -> None:
        if self._closed:
            raise UnavailableError("a server that runs", got="one that is shutting down")
        num_waiting = num_users(
            row.request for row in self._waiting if not row.ticket.abandoned.is_set()
        )
        if num_waiting + num_new > self._max_queue:
            raise QueueFullError(
                f"at most {self._max_queue} waiting requests",
                got=f"{num_waiting} waiting and {num_new} more",
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
        threads = self._num_threads(batch.policy)
        if threads != torch.get_num_threads():
            torch.set_num_threads(threads)
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
