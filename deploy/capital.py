"""What has been won so far, kept up to date event by event while votes go on moving.

``log_capital`` of ``deploy/betting.py`` says the same of a finished table of votes.
"""

import math
from typing import Literal

from deploy.betting import SHARES

_SHARES: tuple[float, ...] = tuple(float(share) for share in SHARES)


class Vote:
    """One subject in one arm."""

    __slots__ = ("centre", "count", "lean", "stake", "total")

    def __init__(self) -> None:
        self.total = 0.0
        self.count = 0
        self.stake = 0.0
        """Signed as in ``deploy.betting.Table``; 0 while it is in no block."""
        self.centre = 0.0
        self.lean = 0.0

    @property
    def success(self) -> float:
        """Mean of its feedback, in [0, 1]."""
        return self.total / self.count


class Capital:
    """What bets against one loss have won, for each share of the largest stake."""

    def __init__(self, loss: float, direction: Literal[1, -1]) -> None:
        """``direction`` 1: against a loss of at most ``loss``; -1: of at least ``loss``."""
        self._loss = loss
        self._direction = direction
        self._by_share = [0.0] * len(_SHARES)

    def move(self, vote: Vote, before: float | None, after: float) -> None:
        """Count what ``vote`` wins at ``after`` in place of ``before``, None if it is new."""
        stake = self._direction * vote.stake
        par = vote.centre + self._loss * vote.lean
        old = 0.0 if before is None else stake * (before - par)
        new = stake * (after - par)
        self._by_share = [
            value + math.log((1 + share * new) / (1 + share * old))
            for value, share in zip(self._by_share, _SHARES, strict=True)
        ]

    def reaches(self, target: float) -> bool:
        """Whether the logarithm of the capital is at least ``target``."""
        # The mean over stakes is never more than the largest, which is quicker to see.
        return max(self._by_share) >= target and self.log >= target

    @property
    def log(self) -> float:
        """Natural logarithm of the mean over shares."""
        top = max(self._by_share)
        return top + math.log(sum(math.exp(value - top) for value in self._by_share) / len(_SHARES))
