"""Sparse updates: only the weights move that matter for the batch and not for what is rehearsed.

Input: gradients of the batch and the Fisher information of replay, both at the parent. Output: a
mask over the trainable weights, drawn up once, before the first step.
"""

import torch
from torch import Tensor


def choose_frozen(batch_gradient: Tensor, fisher: Tensor, *, fraction: float) -> Tensor:
    """[P] bool, true for all weights but the ``fraction`` with the highest score; [P], [P].

    score = |gradient on the batch| / (|gradient on replay| + eps), after sparse memory finetuning
    (Lin et al. 2025, arXiv 2510.15103), which ranks memory slots by TF-IDF of their accesses. The
    gradient on replay is the root mean square over examples, the root of the Fisher information: a
    mean would vanish wherever the policy already fits what it rehearses. eps is the mean of it over
    all weights, so that a weight that replay does not touch is not chosen for that alone. Without
    replay the gradient on the batch decides. At least one weight is left to move.
    """
    replayed = fisher.sqrt()
    eps = replayed.mean()
    score = batch_gradient.abs() / (replayed + eps) if eps > 0 else batch_gradient.abs()
    movable = score.topk(max(1, round(fraction * len(score)))).indices
    return torch.ones_like(score, dtype=torch.bool).index_fill(0, movable, False)
