"""Betting against "the canary loses at most d": what is won is the evidence for a larger loss.

One block is m subjects of the canary and r of the champion, each with a success y in [0, 1]. Before
anything of the block is known a centre c is fixed. Someone who holds that the loss, champion less
canary, is at most d must accept, for any stake s >= 0, a bet on the block that pays

    product over canary   of 1 - s·r·(y - c + d·r/(m + r))
  × product over champion of 1 + s·m·(y - c - d·m/(m + r))

Its mean is at most 1 if they are right: at a loss of d the means of both arms lie off their centres
by the same x, and (1 - s·r·x)^m (1 + s·m·x)^r <= exp(-s·m·r·x + s·m·r·x) = 1; a smaller loss only
lowers it. These are the two-sample e-variables of Turner, Ly & Grünwald 2024 (J. Stat. Plan.
Inference 230:106116, arXiv 2106.02693), linear in y so that they hold for any success in [0, 1].
The product over blocks, averaged over stakes, is the capital; with a probability of at most alpha
it ever reaches 1/alpha (Ville 1939). Bets on "at least d" are the same with both signs turned.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

Floats = NDArray[np.float64]

SHARES: Floats = np.array([0.8, 0.4, 0.2, 0.1])
"""Stakes, as shares of the largest that no outcome at any d can ruin."""
_EDGE = 1e-9


class Table(NamedTuple):
    """Blocks as rows of one subject each."""

    success: Floats
    centre: Floats
    lean: Floats
    """By how much of d the subject's mean lies off its centre: -r/(m+r) or m/(m+r)."""
    stake: Floats
    """Largest stake with its sign: below 0 for the canary, above for the champion."""


def largest_stake(centre: float, num_canary: int, num_champion: int) -> float:
    """The s that keeps every payoff of a block positive for any d in [-1, 1]."""
    m, r = num_canary, num_champion
    far = max(centre, 1 - centre)
    return 1 / max(r * (far + r / (m + r)), m * (far + m / (m + r)))


def log_capital(table: Table, loss: float, *, direction: int = 1) -> float:
    """Natural logarithm of the capital won against a loss of at most ``loss``.

    ``direction`` -1: against a loss of at least ``loss``.
    """
    gains = direction * table.stake * (table.success - table.centre - loss * table.lean)
    by_share = np.log1p(np.multiply.outer(SHARES, gains)).sum(axis=1)
    return float(np.logaddexp.reduce(by_share) - np.log(len(SHARES)))


def loss_bounds(table: Table, *, alpha: float) -> tuple[float, float]:
    """Least and greatest loss that are not refuted, each with error probability ``alpha``."""
    return -_greatest(table, alpha, direction=1), _greatest(table, alpha, direction=-1)


def _greatest(table: Table, alpha: float, *, direction: int) -> float:
    target = -np.log(alpha)

    def left(bound: float) -> float:
        return float(log_capital(table, -direction * bound, direction=direction) - target)

    if left(1.0) <= 0:
        return 1.0
    if left(-1.0) >= 0:
        return -1.0
    return float(brentq(left, -1.0, 1.0, xtol=1e-4))


def mean_bounds(success: Floats, *, alpha: float) -> tuple[float, float]:
    """Bounds of a mean of values in [0, 1], each valid at all looks (arXiv 2010.09686)."""
    return 1 - _mean_high(1 - success, alpha), _mean_high(success, alpha)


def _mean_high(success: Floats, alpha: float) -> float:
    """The largest mean that is not refuted by bets on less."""
    target = -np.log(alpha)

    def left(mean: float) -> float:
        gains = (mean - success) / (1 - mean)
        by_share = np.log1p(np.multiply.outer(SHARES, gains)).sum(axis=1)
        return float(np.logaddexp.reduce(by_share) - np.log(len(SHARES)) - target)

    if not success.size or left(1 - _EDGE) <= 0:
        return 1.0
    return float(brentq(left, float(success.mean()) * (1 - _EDGE), 1 - _EDGE, xtol=1e-4))
