"""A confidence sequence for the mean paired difference: valid whenever one looks, at any size.

Testing by betting (Waudby-Smith & Ramdas 2024, JRSS-B 86:1-27, arXiv 2010.09686). Someone who holds
that the true mean is at most θ must accept, before each cluster g is seen, a bet whose payoff has a
mean of at most 1 if they are right:

    1 + c · (Y_g - θ·M_g) / ((1 + θ) · M)        with c in [0, 1]

where Y_g is the sum of differences in the cluster, each from -1 to 1, M_g its number of items and M
that of the largest cluster of the suite, so that no bet can lose more than all. The product over
clusters is the capital, a nonnegative supermartingale: with a probability of at most α it ever
reaches 1/α (Ville 1939). So what θ it has reached that against is refuted, at every look at once,
for any distribution, any number of items and any dependence within a cluster. Clusters must come
in random order. Which c is best depends on what is to be found out; the mean of the capitals of
several is a capital too (a discrete form of Cover's universal portfolio; Orabona & Jun 2024, IEEE
Trans. Inf. Theory 70:436-455, arXiv 2110.14099). It does not depend on the order of what was seen.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

Floats = NDArray[np.float64]

STAKES: Floats = 0.97 * 2.0 ** (-np.arange(12) / 2)
"""The shares c that are bet: from nearly all, for what loses nothing, down to a fiftieth."""
_EDGE = 1e-9


class Seen(NamedTuple):
    """What was seen of a suite, by cluster; equal clusters are counted once."""

    sums: Floats
    """Sum of differences in a cluster, from -size to size."""
    sizes: Floats
    """Items in it."""
    counts: Floats
    """How many clusters are like that."""
    largest: int
    """Items in the largest cluster of the suite, seen or not."""

    @property
    def mean(self) -> float:
        """Mean difference an item."""
        return float(self.counts @ self.sums / (self.counts @ self.sizes))

    @property
    def mirrored(self) -> "Seen":
        """With both policies in each other's place."""
        return self._replace(sums=-self.sums)


def log_capital(seen: Seen, theta: float) -> float:
    """Natural logarithm of the capital won against a true mean of at most ``theta`` (above -1)."""
    gains = (seen.sums - theta * seen.sizes) / ((1 + theta) * seen.largest)
    with np.errstate(divide="ignore"):  # a bet that lost all has a capital of 0
        by_stake = np.log1p(np.multiply.outer(STAKES, gains)) @ seen.counts
    return float(np.logaddexp.reduce(by_stake) - np.log(len(STAKES)))


def is_above(seen: Seen, theta: float, *, alpha: float) -> bool:
    """Whether a true mean of at most ``theta`` is refuted with error probability ``alpha``."""
    return theta < -1 or log_capital(seen, max(theta, -1 + _EDGE)) > -np.log(alpha)


def lower_bound(seen: Seen, *, alpha: float) -> float:
    """The largest mean that is refuted from below; with probability ``1 - alpha`` never too high.

    -1 if nothing is. Always below the mean that was seen: against that no bet wins.
    """
    start = -1 + _EDGE
    if not is_above(seen, start, alpha=alpha):
        return -1.0
    target = -np.log(alpha)
    return float(brentq(lambda theta: log_capital(seen, theta) - target, start, seen.mean))


def upper_bound(seen: Seen, *, alpha: float) -> float:
    """As :func:`lower_bound`, from above."""
    return -lower_bound(seen.mirrored, alpha=alpha)
