"""What holds an update back, weight by weight: elastic weight consolidation and sparse updates.

Input: the parent, micro-batches of new examples, and replay. Output: a Restraint, the same on
every worker, that changes each step's gradient before it is clipped. Both are off by default and
then cost nothing.
"""

import logging
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from tacit.config import TrainerSettings
from trainer.collective import Collective
from trainer.ewc import ElasticPenalty
from trainer.examples import Example
from trainer.fisher import fisher_diagonal
from trainer.objective import mixed_loss, score_reference
from trainer.packing import MicroBatch
from trainer.scoring import CompletionScorer
from trainer.sparse import choose_frozen

logger = logging.getLogger(__name__)


class Restraint:
    """Does nothing without a penalty and without frozen weights."""

    def __init__(
        self, *, penalty: ElasticPenalty | None = None, frozen: Tensor | None = None
    ) -> None:
        """``frozen``: [number of trainable weights] bool."""
        self._penalty = penalty
        self._frozen = frozen

    def apply(self, values: Tensor, gradient: Tensor) -> float | None:
        """Change ``gradient``, in place; returns the penalty without its weight, None if off.

        A weight whose gradient was always zero is left as it is by AdamW, bit for bit.
        """
        penalty = None
        if self._penalty is not None:
            penalty = self._penalty.add_gradient(values, gradient)
        if self._frozen is not None:
            gradient.masked_fill_(self._frozen, 0)
        return penalty


def draw_up(
    scorer: CompletionScorer,
    pieces: Iterable[MicroBatch],
    replay: Sequence[Example],
    *,
    weights: nn.Parameter,
    settings: TrainerSettings,
    group: Collective,
) -> Restraint:
    """The restraint that ``settings`` ask for. Call before the first step: it measures the parent.

    ``pieces`` are this worker's micro-batches without replay, ``replay`` the examples of all
    workers, and ``weights`` the flat vector of trainable weights, whose gradient ends up zero.
    """
    if settings.ewc.weight == 0 and settings.sparse.fraction == 1:
        return Restraint()
    if not replay:
        logger.warning("no replay to protect: EWC is off, sparse updates mind the batch alone")
    fisher = fisher_diagonal(scorer, replay, weights=weights, group=group)
    penalty = frozen = None
    if settings.ewc.weight > 0 and replay:
        penalty = ElasticPenalty(weights.data, fisher, weight=settings.ewc.weight)
    if settings.sparse.fraction < 1:
        gradient = _batch_gradient(scorer, pieces, weights=weights, settings=settings, group=group)
        frozen = choose_frozen(gradient, fisher, fraction=settings.sparse.fraction)
        frozen = group.broadcast(frozen.to(torch.uint8)).bool()
    return Restraint(penalty=penalty, frozen=frozen)


def _batch_gradient(
    scorer: CompletionScorer,
    pieces: Iterable[MicroBatch],
    *,
    weights: nn.Parameter,
    settings: TrainerSettings,
    group: Collective,
) -> Tensor:
    """[number of trainable weights] of the objective at the parent, summed over all workers."""
    assert weights.grad is not None
    weights.grad.zero_()
    head = scorer.frozen()
    for piece in pieces:
        reference = score_reference(scorer, piece)
        loss, _ = mixed_loss(
            piece,
            table=scorer.logprobs(scorer.hidden(piece.sequences)),
            reference_scorer=head,
            reference=reference,
            z0=weights.new_zeros(()),  # mean log-ratio of the parent to itself
            settings=settings,
        )
        loss.backward()  # type: ignore[no-untyped-call]
    gradient = group.sum(weights.grad.clone())
    weights.grad.zero_()
    return gradient
