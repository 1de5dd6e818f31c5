"""Asking a suite in growing looks, and stopping once what the gate decides on is decided.

In: a suite and what will be decided on it (PlannedTest). Out: which items to ask next, and after
each look the comparisons with champion and anchor. A suite is done when every test on it is
decided, or when one has failed: the candidate is turned away whatever the others would say.

Clusters enter whole, in an order drawn from the suite's digest, so that any prefix is a random
sample and the same suite is always asked in the same order. A comparison with error probability
alpha to either side spends a fifth of it on the looks at which one might stop early, by the
confidence sequence (confidence_sequence.py), and the rest on the interval over all items
(statistics.py): one of the two is wrong with a probability of at most alpha. A suite that is asked
in one look keeps all of it. docs/adr/0014 says why a fifth.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, get_args

import numpy as np

from evaluator.confidence_sequence import Seen, is_above, lower_bound, upper_bound
from evaluator.statistics import (
    Floats,
    Ints,
    cluster_numbers,
    cluster_robust_error,
    compare_differences,
)
from tacit.contracts import Comparison, PlannedTest, Suite, sha256_digest
from tacit.contracts.plan import Baseline

FIRST_LOOK = 128
"""Items of the first look; a suite smaller than two such has one look only."""
GROWTH = 1.5
EARLY_SHARE = 0.2
"""Share of the error probability that is spent on stopping early."""
BASELINES: tuple[Baseline, ...] = get_args(Baseline)


class Target(NamedTuple):
    """What is decided about the difference to one baseline."""

    alpha: float
    """The least error probability of all tests on it: one interval serves them all."""
    thresholds: tuple[float, ...]


class Differences(NamedTuple):
    """Candidate minus baseline for the items asked so far."""

    values: Floats
    members: Ints
    """Number of the cluster of each, from 0."""


def targets(
    suite: Suite, tests: Sequence[PlannedTest], *, confidence: float
) -> dict[Baseline, Target]:
    """What is decided on ``suite``; ``confidence`` is for a baseline that no test is about."""
    found: dict[Baseline, Target] = {}
    for baseline in BASELINES:
        here = [test for test in tests if test.baseline == baseline and test.covers(suite)]
        alpha = min((test.alpha for test in here), default=(1 - confidence) / 2)
        found[baseline] = Target(alpha, tuple(sorted({test.threshold for test in here})))
    return found


class Schedule:
    """The looks at one suite."""

    def __init__(self, suite: Suite, found: Mapping[Baseline, Target]) -> None:
        """One look, at everything, where nothing is decided on ``suite``."""
        clusters = cluster_numbers([item.cluster for item in suite.items])
        sizes = np.bincount(clusters)
        self.largest = int(sizes.max())
        seed = suite.digest()
        keys = [sha256_digest(f"{seed}/{number}".encode()) for number in range(len(sizes))]
        rank = np.empty(len(sizes), dtype=np.intp)
        rank[np.argsort(keys)] = np.arange(len(sizes))
        self.order: Ints = np.argsort(rank[clusters], kind="stable")
        self.members: Ints = rank[clusters][self.order]
        """Numbers of the clusters in the order they are asked in."""
        ends = np.flatnonzero(np.diff(self.members, append=len(sizes))) + 1
        stops = any(target.thresholds for target in found.values())
        self.looks = _looks(ends) if stops else [len(suite.items)]
        """Items asked after each look."""

    @property
    def can_stop(self) -> bool:
        """Whether there is more than one look."""
        return len(self.looks) > 1


def _looks(ends: Ints) -> list[int]:
    """Sizes that grow, each at the end of a cluster."""
    total = int(ends[-1])
    looks: list[int] = []
    wanted = FIRST_LOOK if total >= 2 * FIRST_LOOK else total
    while not looks or looks[-1] < total:
        place = min(int(np.searchsorted(ends, wanted)), len(ends) - 1)
        looks.append(int(ends[place]))
        wanted = round(looks[-1] * GROWTH)
    return looks


def is_decided(schedule: Schedule, target: Target, seen: Differences) -> bool | None:
    """True once every test is decided, None as soon as one has failed, else False."""
    if not target.thresholds:
        return True
    summed = _seen(seen, schedule.largest)
    alpha = target.alpha * EARLY_SHARE
    # No bet wins against what was seen, so there is one side to look at.
    below = [t for t in target.thresholds if t >= summed.mean]
    if any(is_above(summed.mirrored, -threshold, alpha=alpha) for threshold in below):
        return None
    above = target.thresholds[: len(target.thresholds) - len(below)]
    return not below and all(is_above(summed, threshold, alpha=alpha) for threshold in above)


def compare_at(schedule: Schedule, target: Target, seen: Differences) -> Comparison:
    """The comparison at the present look, wrong by ``target.alpha`` at most to either side."""
    confidence = 1 - 2 * target.alpha
    if len(seen.values) < schedule.looks[-1]:
        return _anytime(schedule, target, seen)
    if not schedule.can_stop:
        return compare_differences(seen.values, seen.members, confidence=confidence)
    strict = 1 - 2 * target.alpha * (1 - EARLY_SHARE)
    at_the_end = compare_differences(seen.values, seen.members, confidence=strict)
    return at_the_end.model_copy(update={"confidence": confidence})


def _anytime(schedule: Schedule, target: Target, seen: Differences) -> Comparison:
    summed = _seen(seen, schedule.largest)
    alpha = target.alpha * EARLY_SHARE
    alone = seen.members.max() == 0
    return Comparison(
        difference=float(seen.values.mean()),
        ci_low=lower_bound(summed, alpha=alpha),
        ci_high=upper_bound(summed, alpha=alpha),
        confidence=1 - 2 * target.alpha,
        standard_error=1.0 if alone else cluster_robust_error(seen.values, seen.members),
        anytime=True,
    )


def _seen(seen: Differences, largest: int) -> Seen:
    if largest == 1:
        kinds, counts = np.unique(seen.values, return_counts=True)
        return Seen(kinds, np.ones(len(kinds)), counts.astype(float), 1)
    sums: Floats = np.bincount(seen.members, weights=seen.values).astype(float)
    sizes: Floats = np.bincount(seen.members).astype(float)
    pairs, counts = np.unique(np.column_stack([sums, sizes]), axis=0, return_counts=True)
    return Seen(pairs[:, 0], pairs[:, 1], counts.astype(float), largest)


class Asking:
    """One suite under way: what to ask next, and whether that is still needed."""

    def __init__(self, schedule: Schedule, found: Mapping[Baseline, Target]) -> None:
        self.schedule = schedule
        self.targets = found
        self.looks: list[int] = []
        """Items asked after each look so far."""
        self.is_open = True

    @property
    def num_asked(self) -> int:
        """Items asked so far."""
        return self.looks[-1] if self.looks else 0

    @property
    def wanted(self) -> list[int]:
        """Indices of the items to ask next, in this order."""
        end = self.schedule.looks[len(self.looks)]
        return [int(index) for index in self.schedule.order[self.num_asked : end]]

    def look(self, differences: Mapping[Baseline, Floats]) -> None:
        """``differences`` to each baseline for all items asked so far, in the order of asking."""
        end = self.schedule.looks[len(self.looks)]
        self.looks.append(end)
        if end == self.schedule.looks[-1]:
            self.is_open = False
            return
        decided = [
            is_decided(self.schedule, target, self._seen(differences[baseline]))
            for baseline, target in self.targets.items()
        ]
        self.is_open = None not in decided and not all(decided)

    def compare(self, baseline: Baseline, differences: Floats) -> Comparison:
        """The comparison with ``baseline`` after the last look."""
        return compare_at(self.schedule, self.targets[baseline], self._seen(differences))

    def _seen(self, values: Floats) -> Differences:
        return Differences(values, self.schedule.members[: len(values)])
