"""Statistics that may roll a canary back: the real test, and what it is set against.

Each is fed one event at a time and may be asked after every one. Beside the real test: the same
bets with every event as a vote of its own, which is blind to clusters; the first event of each
subject alone; and a normal mixture over the difference with the cluster-robust variance of both
arms (asymptotic confidence sequences: Waudby-Smith et al. 2024, arXiv 2103.06476, with the
one-sided mixture of Robbins 1970).
"""

import math
from typing import Protocol

from deploy.sequential import ArmTest
from tacit.contracts import Arm

ALPHA = 0.05
Sent = tuple[Arm, str, float]
"""Arm, subject, success."""


class Statistic(Protocol):
    """Something that may roll a canary back."""

    def rolls_back(self, sent: Sent) -> bool:
        """Whether it does after one more event."""
        ...


class Votes:
    """The real test."""

    def __init__(self) -> None:
        # No loss is small enough to stop for, so that the whole horizon counts against it.
        self._test = ArmTest(alpha=ALPHA, margin=1e-6)

    def rolls_back(self, sent: Sent) -> bool:
        """As a rollout asks it."""
        return self._test.update(*sent) == "rollback"


class Events(Votes):
    """The same bets, every event a vote of its own."""

    _number = 0

    def rolls_back(self, sent: Sent) -> bool:
        """Blind to who sent it."""
        self._number += 1
        return super().rolls_back((sent[0], str(self._number), sent[2]))


class Firsts(Votes):
    """The same bets on the first event of each subject."""

    def __init__(self) -> None:
        super().__init__()
        self._known: set[str] = set()

    def rolls_back(self, sent: Sent) -> bool:
        """Deaf to a second event."""
        if sent[1] in self._known:
            return False
        self._known.add(sent[1])
        return super().rolls_back(sent)


class Mixture:
    """A half-normal mixture over losses, with cluster-robust variances from sums by subject."""

    def __init__(self) -> None:
        self._arms: dict[Arm, _Sums] = {"champion": _Sums(), "canary": _Sums()}

    def rolls_back(self, sent: Sent) -> bool:
        """Once both arms have ten subjects, as the variance is unknown before."""
        self._arms[sent[0]].add(sent[1], sent[2])
        champion, canary = self._arms["champion"], self._arms["canary"]
        if min(len(champion.subjects), len(canary.subjects)) < 10:
            return False
        spread, variance = 0.1**2, champion.variance() + canary.variance()
        z = (champion.mean - canary.mean) / math.sqrt(variance)
        wider = spread + variance
        log_e = 0.5 * math.log(variance / wider) + z * z * spread / (2 * wider)
        above = 0.5 * math.erfc(-z * math.sqrt(spread / wider) / math.sqrt(2))
        return above > 0 and log_e + math.log(2 * above) >= -math.log(ALPHA)


class _Sums:
    def __init__(self) -> None:
        self.subjects: dict[str, tuple[float, int]] = {}
        self.total, self.number = 0.0, 0
        self._squares = [0.0, 0.0, 0.0]
        """Of sums, of sums times counts, and of counts."""

    @property
    def mean(self) -> float:
        return self.total / self.number

    def add(self, subject: str, success: float) -> None:
        total, number = self.subjects.get(subject, (0.0, 0))
        self._count(total, number, -1)
        self.subjects[subject] = total + success, number + 1
        self._count(total + success, number + 1, 1)
        self.total += success
        self.number += 1

    def variance(self) -> float:
        """Of the mean, never below that of one failure among so many and one more."""
        a, b, c = self._squares
        floor = (self.number + 1) / (self.number + 2) ** 2 / (self.number + 3)
        return max((a - 2 * self.mean * b + self.mean**2 * c) / self.number**2, floor)

    def _count(self, total: float, number: int, sign: int) -> None:
        for place, product in enumerate((total * total, total * number, number * number)):
            self._squares[place] += sign * product
