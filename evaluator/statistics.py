"""Statistics of paired evaluation: how sure is it that the candidate is better or no worse?

Both policies answer the same items, so the difference is taken item by item: what makes an item
hard cancels out (Miller 2024, "Adding Error Bars to Evals", arXiv 2411.00640, section 4). Items of
one cluster are near-duplicates and count as one draw: the standard error is cluster-robust (Liang
& Zeger 1986, Biometrika 73:13-22) with the CR1 small-sample factor G/(G-1), and the interval uses
Student's t with G-1 degrees of freedom for G clusters.

That interval has no width when nothing changed on any item, and too little when very few items
changed. Zero losses among n items do not prove a loss rate of zero: its 95 % bound is about 3/n
(Hanley & Lippman-Hand 1983, JAMA 249:1743-1745). So the interval reaches at least as far down as
the exact binomial bound on the share of lost items does (Clopper & Pearson 1934, Biometrika
26:404-413), and at least as far up as that on the share of won items. With clusters the number of
draws is the effective one (Korn & Graubard 1998, Survey Methodology 24:193-201).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from tacit.contracts import Comparison
from tacit.errors import EvaluationError

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]


def compare(
    candidate: Sequence[float],
    baseline: Sequence[float],
    clusters: Sequence[str],
    *,
    confidence: float,
) -> Comparison:
    """Mean paired difference, candidate minus baseline, and its two-sided interval.

    All three have one entry an item, scores from 0 to 1; an empty cluster means the item stands
    alone. From a single cluster nothing can be concluded: the interval is then [-1, 1], and the
    standard error its upper bound for values in that range, 1 (Popoviciu 1935).
    Raises EvaluationError for no items or unequal lengths.
    """
    if not len(candidate) == len(baseline) == len(clusters) or not len(candidate):
        lengths = f"{len(candidate)}, {len(baseline)} and {len(clusters)}"
        raise EvaluationError(
            "as many scores of both policies as clusters, one at least", got=lengths
        )
    differences: Floats = np.asarray(candidate, dtype=float) - np.asarray(baseline, dtype=float)
    return compare_differences(differences, cluster_numbers(clusters), confidence=confidence)


def compare_differences(differences: Floats, members: Ints, *, confidence: float) -> Comparison:
    """As :func:`compare`, from differences and the numbers of their clusters, all from 0 to G-1."""
    mean = float(differences.mean())
    if members.max() == 0:
        return _comparison(mean, -1.0, 1.0, confidence, 1.0)
    error = cluster_robust_error(differences, members)
    tail = (1 - confidence) / 2
    half_width = float(special.stdtrit(members.max(), 1 - tail)) * error
    low = mean - max(half_width, _exact_slack(np.maximum(-differences, 0), members, tail))
    high = mean + max(half_width, _exact_slack(np.maximum(differences, 0), members, tail))
    return _comparison(mean, low, high, confidence, error)


def _comparison(
    mean: float, low: float, high: float, confidence: float, error: float
) -> Comparison:
    return Comparison(
        difference=mean,
        ci_low=max(low, -1.0),
        ci_high=min(high, 1.0),
        confidence=confidence,
        standard_error=error,
    )


def cluster_numbers(clusters: Sequence[str]) -> Ints:
    """A number from 0 to G-1 for each item; an item with an empty cluster gets its own."""
    keys = [("item", str(i)) if not name else ("cluster", name) for i, name in enumerate(clusters)]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.asarray([numbers[key] for key in keys], dtype=np.intp)


def cluster_robust_error(values: Floats, members: Ints) -> float:
    """CR1 standard error of the mean of ``values``; ``members`` numbers their clusters from 0.

    For the mean, the sandwich of Liang & Zeger (1986) is the sum over clusters of the squared sum
    of residuals, over n²; CR1 multiplies it by G/(G-1). Needs at least two clusters.
    """
    num_clusters = int(members.max()) + 1
    sums: Any = np.bincount(members, weights=values - values.mean(), minlength=num_clusters)
    variance = float((sums**2).sum()) / len(values) ** 2 * num_clusters / (num_clusters - 1)
    return float(np.sqrt(variance))


def share_lower_bound(num_hits: int, num_trials: int, *, confidence: float) -> float:
    """One-sided exact lower bound of a share (Clopper & Pearson 1934); 0 from no trials."""
    if num_hits == 0:
        return 0.0
    return float(special.betaincinv(num_hits, num_trials - num_hits + 1, 1 - confidence))


def _exact_slack(amounts: Floats, members: Ints, tail: float) -> float:
    """How far the exact upper bound on the mean of ``amounts`` (0 to 1) lies above it."""
    rate = float(amounts.mean())
    num_draws = _effective_draws(amounts, members)
    count = rate * num_draws
    if count >= num_draws:
        return 0.0
    return float(special.betaincinv(count + 1, num_draws - count, 1 - tail)) - rate


def _effective_draws(amounts: Floats, members: Ints) -> float:
    """Independent draws that ``amounts`` are worth, between Kish's n²/Σn_g² and n.

    Two clusters with an amount are needed to estimate how alike the items of a cluster are; with
    fewer they are taken as copies of each other, which is the worst case.
    """
    sizes = np.bincount(members)
    worst = len(members) ** 2 / float((sizes**2).sum())
    if np.count_nonzero(np.bincount(members, weights=amounts)) < 2:
        return worst
    rate, error = float(amounts.mean()), cluster_robust_error(amounts, members)
    if error == 0:
        return worst
    return min(max(rate * (1 - rate) / error**2, worst), float(len(members)))
