"""How many items a suite needs before a margin can be shown at all."""

import numpy as np

from evaluator.sequential import EARLY_SHARE, FIRST_LOOK
from evaluator.statistics import cluster_numbers, compare_differences
from tacit.contracts import Suite


def least_items(threshold: float, *, alpha: float) -> int | None:
    """The fewest independent items with which an unchanged policy passes a test.

    ``threshold`` (accuracy) is what the difference must be shown to lie above, with a one-sided
    error probability of ``alpha``. It is the best case: not one item is answered otherwise than
    before, which a policy that learned something rarely achieves. None for a threshold of 0 or
    more, which nothing that is unchanged lies above.
    """
    if threshold >= 0:
        return None
    low, high = 2, 2
    while not _passes(high, threshold, alpha):
        low, high = high + 1, 2 * high
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _passes(middle, threshold, alpha) else (middle + 1, high)
    return low


def independent_items(suite: Suite) -> int:
    """What the items of ``suite`` are worth as independent ones, n²/Σn_g² (Kish 1965), at worst."""
    sizes = np.bincount(cluster_numbers([item.cluster for item in suite.items]))
    return int(len(suite.items) ** 2 / float((sizes**2).sum()))


def _passes(num_items: int, threshold: float, alpha: float) -> bool:
    # Where a suite can stop early, that has cost a share of the error probability.
    spent = EARLY_SHARE if num_items >= 2 * FIRST_LOOK else 0.0
    confidence = 1 - 2 * alpha * (1 - spent)
    shown = compare_differences(np.zeros(num_items), np.arange(num_items), confidence=confidence)
    return shown.ci_low > threshold
