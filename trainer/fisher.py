"""How much what is rehearsed hangs on each weight: the diagonal of the Fisher information.

Input: replay examples and the parent policy. Output: a vector over the trainable weights, the same
on every worker. One backward pass an example: squares of a mean over examples say something else.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainer.collective import Collective
from trainer.examples import Example
from trainer.packing import to_device
from trainer.scoring import CompletionScorer
from trainer.sequences import collate

MAX_EXAMPLES = 256
"""Of more than these, evenly spaced ones are taken: the mean hardly changes, the time does."""


def fisher_diagonal(
    scorer: CompletionScorer,
    replay: Sequence[Example],
    *,
    weights: nn.Parameter,
    group: Collective,
) -> Tensor:
    """[number of trainable weights] mean over ``replay`` of (d log pi(y|x) / d theta_i)^2.

    ``weights`` is the flat vector whose gradient backward passes add to; that gradient is zero
    afterwards. The empirical Fisher information: y is the completion that was accepted, not one
    drawn anew from the policy, as equation 3 of Kirkpatrick et al. 2017 (arXiv 1612.00796) would
    have it; Kunstner et al. 2019 (arXiv 1905.12558) say where the two differ. Zero without replay.
    """
    assert weights.grad is not None
    total = torch.zeros_like(weights.grad)
    chosen = replay[:: -(-len(replay) // MAX_EXAMPLES) or 1]
    for example in chosen[group.rank :: group.world_size]:
        weights.grad.zero_()
        _logprob(scorer, example, weights.device).backward()  # type: ignore[no-untyped-call]
        total += weights.grad.square()
    weights.grad.zero_()
    return group.sum(total) / max(1, len(chosen))


def _logprob(scorer: CompletionScorer, example: Example, device: torch.device) -> Tensor:
    """log pi(y|x) of the whole completion."""
    sequences = to_device(collate([(example.prompt, example.completion)], pad_id=0), device)
    table = scorer.logprobs(scorer.hidden(sequences))
    return table.gather(-1, sequences.targets[:, None]).sum()
