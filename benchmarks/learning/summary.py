"""Figures over seeds: means with intervals, and what the benchmark promises."""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from scipy.stats import t as student

from benchmarks.learning.arms import CEILING, DEFAULT
from benchmarks.learning.plan import FROZEN, NOISY, OVERTURNED
from benchmarks.learning.probes import Row
from benchmarks.learning.variants import BASIC

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A mean over seeds with half the width of its 95 % interval, infinite for one seed."""

    mean: float
    half_width: float
    num_seeds: int


Figures = Mapping[tuple[str, str], Mapping[int, Row]]
"""Rows by arm and variant, then by seed."""


def by_arm(rows: Iterable[Row]) -> Figures:
    """Rows in a table, but for those that try other settings."""
    found: defaultdict[tuple[str, str], dict[int, Row]] = defaultdict(dict)
    for row in rows:
        cell = row["cell"]
        if cell["overrides"]:
            continue
        found[cell["arm"], cell["variant"]][cell["seed"]] = row
    return dict(found)


def interval(values: Sequence[float]) -> Interval:
    """Student's interval of the mean of independent ``values``."""
    mean, number = statistics.fmean(values), len(values)
    if number == 1:
        return Interval(mean, math.inf, 1)
    error = statistics.stdev(values) / math.sqrt(number)
    return Interval(mean, float(student.ppf((1 + CONFIDENCE) / 2, number - 1)) * error, number)


def final(figures: Figures, arm: str, variant: str, name: str) -> dict[int, float]:
    """The figure ``name`` at the end, by seed; empty where no cell has it."""
    rows = figures.get((arm, variant), {})
    return {seed: row["final"][name] for seed, row in rows.items() if name in row["final"]}


def difference(one: Mapping[int, float], other: Mapping[int, float]) -> Interval | None:
    """``one - other`` over the seeds both have; None where they share none."""
    shared = sorted(one.keys() & other.keys())
    return interval([one[seed] - other[seed] for seed in shared]) if shared else None


def old_drop(figures: Figures, arm: str, variant: str) -> Interval | None:
    """How far old intents fell below the base's accuracy."""
    before = final(figures, FROZEN, BASIC, "old")
    return difference(before, final(figures, arm, variant, "old"))


def gain_gap(figures: Figures, arm: str, variant: str) -> Interval | None:
    """How far new intents stay below joint training on clean answers."""
    ceiling = final(figures, CEILING, BASIC, "new")
    return difference(ceiling, final(figures, arm, variant, "new"))


def neighbour_drop(figures: Figures, arm: str = DEFAULT) -> Interval | None:
    """How far neighbours fell from the round before a rule is overturned to the end."""
    drops = []
    for row in figures.get((arm, OVERTURNED), {}).values():
        before = row["rounds"][row["turn"] - 1]
        drops.append(before["neighbours"] - row["final"]["neighbours"])
    return interval(drops) if drops else None


def dominating(figures: Figures, variant: str = BASIC) -> list[str]:
    """Arms whose means over the seeds they share with the default are at least as good on new and
    on old intents, and better on one. Frozen and joint training are bounds, not rivals."""
    found = []
    for arm, other in figures:
        if other != variant or arm in (DEFAULT, CEILING, FROZEN):
            continue
        gaps = [
            difference(final(figures, arm, variant, part), final(figures, DEFAULT, variant, part))
            for part in ("new", "old")
        ]
        means = [gap.mean for gap in gaps if gap is not None]
        if len(means) == 2 and min(means) >= 0 and max(means) > 0:
            found.append(arm)
    return found


def promised(figures: Figures) -> dict[str, float | bool | str | None]:
    """What the benchmark prints last; None where the cells are missing."""
    turned = final(figures, DEFAULT, OVERTURNED, "overturned")
    found = {
        "gain_gap_to_joint": gain_gap(figures, DEFAULT, BASIC),
        "old_drop": old_drop(figures, DEFAULT, BASIC),
        "noisy_gain_gap": gain_gap(figures, DEFAULT, NOISY),
        "noisy_old_drop": old_drop(figures, DEFAULT, NOISY),
        "overturned": interval(list(turned.values())) if turned else None,
        "neighbour_drop": neighbour_drop(figures),
    }
    means = {name: None if one is None else one.mean for name, one in found.items()}
    return {**means, "dominated_by": ", ".join(dominating(figures)) or "none"}
