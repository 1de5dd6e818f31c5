"""Consolidation: a promoted adapter is folded into the weights under it, and the policy stays.

Input: an UpdateJob without events, whose parent is an adapter, with replay. Output: StepMetrics and
the digest of a full checkpoint. One worker does all of it; the others have nothing to do.

1. W + scale * BA in float32, and trained token embeddings in their rows: the adapter policy.
2. Rounded to the precision the base is stored in. In float32 that changes nothing: this is it.
3. Else what rounding did is mended by distillation on the replay: KL(adapter policy || rounded
   policy), Hinton et al. 2015 (arXiv 1503.02531). The rounded weights compute, their gradients move
   the unrounded ones (straight-through, Bengio et al. 2013, arXiv 1308.3432), or small steps would
   be rounded away. The state nearest to the adapter policy is kept, so it is never worse than 2.
"""

import copy
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from torch import Tensor, nn

from tacit.checkpoints import CheckpointStore
from tacit.config import TrainerSettings
from tacit.contracts import Digest, ReplayExample
from tacit.errors import TrainingError
from tacit.metrics import MetricName
from tacit.policies import completion_ids, load_model, load_tokenizer, prompt_ids
from trainer.checkpoint import OpenPolicy, save_policy
from trainer.losses import kl_divergence
from trainer.packing import to_device
from trainer.progress import StepMetrics
from trainer.scoring import CompletionScorer
from trainer.sequences import Sequences, TokenIds, collate

if TYPE_CHECKING:
    from trainer.session import UpdateJob

logger = logging.getLogger(__name__)

CLOSE_NATS = 1e-6
"""A divergence per token that is close to the noise of float32, and that no answer shows."""

Step = list[Sequences]
"""Pieces of one optimizer step, each small enough for memory."""


def consolidate(
    job: "UpdateJob", *, store: CheckpointStore, device: str
) -> Iterator[StepMetrics | Digest]:
    """Fold ``job.parent``; yields StepMetrics a pass of distillation, and the digest last.

    Raises TrainingError if the parent is no adapter, NotFoundError, IntegrityError.
    """
    base = store.manifest(job.parent).base
    if base is None:
        raise TrainingError(
            "a policy with an adapter to fold", got=f"{job.parent}, a full checkpoint"
        )
    tokenizer = load_tokenizer(store, base)
    model = folded(store, job.parent, base).to(device).eval()
    dtype = model.config.dtype or torch.float32
    if dtype != torch.float32:  # else there is nothing to mend
        steps = _steps(tokenizer, job.replay, job.settings, device)
        yield from _Distillation(model, dtype, steps, job.settings).run()
    policy = OpenPolicy(model=model, tokenizer=tokenizer, base=None)
    yield save_policy(store, policy, parent=job.parent)


def folded(store: CheckpointStore, adapter: Digest, base: Digest) -> Any:
    """The model of ``base`` with ``adapter`` folded into its weights, unrounded in float32."""
    model = load_model(store, base).float()
    return PeftModel.from_pretrained(model, store.path(adapter)).merge_and_unload()


class _Distillation:
    """Rounds ``model`` in place to what ``dtype`` can hold, as near to what it was as it can be."""

    def __init__(
        self, model: Any, dtype: torch.dtype, steps: Sequence[Step], settings: TrainerSettings
    ) -> None:
        self._dtype = dtype
        self._steps = steps
        self._settings = settings.consolidation
        self._student = CompletionScorer(model)
        self._teacher = CompletionScorer(copy.deepcopy(model).requires_grad_(False))
        self._parameters: list[nn.Parameter] = list(model.requires_grad_(True).parameters())
        self._exact = [nn.Parameter(p.detach().clone()) for p in self._parameters]

    def run(self) -> Iterator[StepMetrics]:
        """The divergence after each pass, that of the state kept last; none without replay."""
        self._round()
        if not self._steps:
            return
        num_passes = self._settings.num_epochs
        best, kept = self._divergence(), self._snapshot()
        yield self._metrics(1, best)
        optimizer = torch.optim.AdamW(
            self._exact, lr=self._settings.learning_rate, weight_decay=0.0
        )
        for number in range(num_passes):
            if best <= CLOSE_NATS:
                break
            for step in self._steps:
                self._take(step, optimizer)
            found = self._divergence()
            if found < best:
                best, kept = found, self._snapshot()
            yield self._metrics(number + 2, found)
        with torch.no_grad():
            for parameter, value in zip(self._parameters, kept, strict=True):
                parameter.copy_(value)
        yield self._metrics(num_passes + 2, best)

    def _metrics(self, step: int, divergence: float) -> StepMetrics:
        name = MetricName.KL_CONSOLIDATION.value
        return StepMetrics(step, self._settings.num_epochs + 2, {name: divergence})

    @torch.no_grad()
    def _round(self) -> None:
        for parameter, exact in zip(self._parameters, self._exact, strict=True):
            parameter.copy_(exact.to(self._dtype))

    def _snapshot(self) -> list[Tensor]:
        return [parameter.detach().to(self._dtype, copy=True) for parameter in self._parameters]

    def _take(self, step: Step, optimizer: torch.optim.Optimizer) -> None:
        num_tokens = sum(len(piece.targets) for piece in step)
        for piece in step:
            (self._sum(piece) / num_tokens).backward()  # type: ignore[no-untyped-call]
        for parameter, exact in zip(self._parameters, self._exact, strict=True):
            exact.grad, parameter.grad = parameter.grad, None
        optimizer.step()
        self._round()

    @torch.no_grad()
    def _divergence(self) -> float:
        """KL per token over all of the replay, in nats."""
        pieces = [piece for step in self._steps for piece in step]
        return sum(float(self._sum(piece)) for piece in pieces) / sum(
            len(piece.targets) for piece in pieces
        )

    def _sum(self, piece: Sequences) -> Tensor:
        with torch.no_grad():
            teacher = self._teacher.logprobs(self._teacher.hidden(piece))
        student = self._student.logprobs(self._student.hidden(piece))
        return kl_divergence(teacher, student).sum()


def _steps(
    tokenizer: Any, replay: Sequence[ReplayExample], settings: TrainerSettings, device: str
) -> list[Step]:
    """The replay in its order, ``batch_size`` examples a step."""
    pairs = [_tokens(tokenizer, example, settings.max_length) for example in replay]
    size = settings.batch_size
    return [
        [
            to_device(collate(piece, pad_id=tokenizer.pad_token_id), device)
            for piece in _pieces(pairs[start : start + size], settings.micro_batch_tokens)
        ]
        for start in range(0, len(pairs), size)
    ]


def _tokens(tokenizer: Any, example: ReplayExample, max_length: int) -> tuple[TokenIds, TokenIds]:
    completion = completion_ids(tokenizer, example.completion)[: max_length - 1]
    prompt = prompt_ids(tokenizer, example.prompt)[len(completion) - max_length :]
    return tuple(prompt), tuple(completion)


def _pieces(
    pairs: Sequence[tuple[TokenIds, TokenIds]], max_tokens: int
) -> list[list[tuple[TokenIds, TokenIds]]]:
    """``pairs`` in portions of at most ``max_tokens`` tokens, padding included."""
    pieces: list[list[tuple[TokenIds, TokenIds]]] = []
    width = 0
    for prompt, completion in sorted(pairs, key=lambda pair: sum(map(len, pair))):
        width = max(width, len(prompt) + len(completion))
        if not pieces or width * (len(pieces[-1]) + 1) > max_tokens:
            pieces.append([])
        pieces[-1].append((prompt, completion))
    return pieces
