"""The embedded engine: ``transformers`` on this machine, requests batched as they wait.

One worker thread takes what is waiting for one policy, up to ``max_batch_size``, through one
``generate``; every row keeps its own sampling parameters and is answered as soon as it is done.
Loading happens on the caller's thread beside it, so that the old policy answers until the new one
is warm; for that moment both are in memory.
"""

import logging
import threading
from collections import deque
from collections.abc import Sequence

import torch
from transformers import LogitsProcessorList, StoppingCriteriaList

from deploy.engines.base import ContextLengthError, GenerationRequest, QueueFullError, Ticket
from deploy.engines.row import Row
from deploy.engines.sampling import RowSampler, RowsDone
from tacit.checkpoints import CheckpointStore
from tacit.contracts import Digest, Message, SamplingParameters
from tacit.errors import UnavailableError
from tacit.policies import Policy, load_policy

logger = logging.getLogger(__name__)

_WARM_UP = GenerationRequest(
    prompt=(Message(role="user", content="warm up"),), sampling=SamplingParameters(max_tokens=1)
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
        row = _bind(_WARM_UP, policy)
        _generate([row])
        row.ticket.future.result(timeout=0)
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
        """Stop after the batch in progress; what still waits fails."""
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
        while self._step():
            pass

    def _step(self) -> bool:
        # A function of its own: while it waits, nothing here may keep an old policy alive.
        rows = self._take()
        if rows is None:
            return False
        rows = [row for row in rows if row.ticket.future.set_running_or_notify_cancel()]
        if rows:
            _answer(rows)
        return True

    def _take(self) -> list[Row] | None:
        """The rows of the next batch, first come first served; None when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return None
            policy = self._waiting[0].policy
            same = [row for row in self._waiting if row.policy is policy][: self._max_batch_size]
            taken = {id(row) for row in same}
            self._waiting = deque(row for row in self._waiting if id(row) not in taken)
            return same


def _bind(request: GenerationRequest, policy: Policy) -> Row:
    prompt_ids = policy.prompt_ids(request.prompt)
    max_tokens = request.sampling.max_tokens
    context = getattr(policy.model.config, "max_position_embeddings", None)
    if context is not None and len(prompt_ids) + max_tokens > context:
        if not request.fit_context or len(prompt_ids) >= context:
            raise ContextLengthError(
                f"prompt and completion of at most {context} tokens together",
                got=f"{len(prompt_ids)} of the prompt and {max_tokens} of the completion",
                mend="Shorten the messages or max_tokens.",
            )
        max_tokens = context - len(prompt_ids)
    return Row(request, policy, prompt_ids=prompt_ids, max_tokens=max_tokens)


def _answer(rows: list[Row]) -> None:
    try:
        _generate(rows)
    except Exception as error:  # whatever a model raises, the requests must hear of it
        logger.exception("a batch of %s requests failed", len(rows))
        for row in rows:
            row.fail(error)


@torch.inference_mode()
def _generate(rows: list[Row]) -> None:
    policy = rows[0].policy
    tokenizer, width = policy.tokenizer, max(len(row.prompt_ids) for row in rows)
    padding = [width - len(row.prompt_ids) for row in rows]
    ids = [[tokenizer.pad_token_id] * n + r.prompt_ids for n, r in zip(padding, rows, strict=True)]
    mask = [[0] * n + [1] * (width - n) for n in padding]
    policy.model.generate(
        input_ids=torch.tensor(ids, device=policy.device),
        attention_mask=torch.tensor(mask, device=policy.device),
        max_new_tokens=max(row.max_tokens for row in rows),
        do_sample=False,
        num_beams=1,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        logits_processor=LogitsProcessorList([RowSampler(rows)]),
        stopping_criteria=StoppingCriteriaList([RowsDone(rows)]),
    )


def _resolve(device: str) -> str:
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"
