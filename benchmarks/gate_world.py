"""Simulated policies that answer the same items: how right they are, and how alike.

A one-factor model: item i has a difficulty z_i, standard normal, shared by all policies. A policy
is right where sqrt(r)·z_i + sqrt(1-r)·e_i lies below a threshold. The latent correlation r is found
so that the correctness of two policies at the base rate correlates as asked (the tetrachoric
correlation). In clusters a part of e_i is shared by the items of one cluster, found so that the
differences between two policies correlate as asked.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

Right = NDArray[np.float64]


def binary_correlation(latent: float, share: float) -> float:
    """Correlation of two indicators, each 1 with probability ``share``, of normals that correlate
    ``latent``."""
    at = ndtri(share)
    both = stats.multivariate_normal([0, 0], [[1, latent], [latent, 1]]).cdf([at, at])
    return float((both - share**2) / (share * (1 - share)))


def latent_correlation(wanted: float, share: float) -> float:
    """The latent correlation at which indicators correlate ``wanted``."""
    return float(brentq(lambda r: binary_correlation(r, share) - wanted, 0, 0.999, xtol=1e-6))


class World:
    """One set of items, and policies that answer them."""

    def __init__(
        self,
        num_items: int,
        *,
        base: float = 0.8,
        between_policies: float = 0.4,
        cluster_size: int = 1,
        within_cluster: float = 0.0,
        seed: int,
    ) -> None:
        """``between_policies``: correlation of correctness on an item; ``within_cluster``: of the
        differences between two policies on items of a cluster."""
        self._random = np.random.default_rng(seed)
        self._size = cluster_size
        self._num_items = num_items
        self._r = latent_correlation(between_policies, base)
        # Differences of independent items covary within a cluster by twice what one policy's do.
        own = within_cluster * (1 - between_policies)
        self._shared = latent_correlation(own, base) / (1 - self._r) if own else 0.0
        self.redraw()

    def redraw(self) -> None:
        """Other items."""
        self._difficulty = math.sqrt(self._r) * self._random.standard_normal(self._num_items)

    def answers(self, accuracy: float) -> Right:
        """1 where a new policy of this true accuracy is right, by item."""
        edge = ndtri(accuracy) - self._difficulty
        noise = 1 - self._r
        if self._shared:
            per_cluster = self._random.standard_normal(self._num_items // self._size)
            edge -= math.sqrt(noise * self._shared) * np.repeat(per_cluster, self._size)
            noise *= 1 - self._shared
        return (self._random.random(self._num_items) < ndtr(edge / math.sqrt(noise))) * 1.0
