"""Confidence intervals as small drawings: where each line goes, computed for the templates."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tacit.contracts import Comparison, Criterion, EvalReport, GateVerdict

PLOT_WIDTH = 220.0
MAX_LIMIT = 0.10
_EDGE = 10.0
_HALF_LABEL = 28.0
"""Half the width of "limit −10.0", so that it stays within the drawing."""


@dataclass(frozen=True)
class IntervalPlot:
    """Where to draw a confidence interval; all in units of the drawing, 0 to ``PLOT_WIDTH``."""

    low: float
    high: float
    point: float | None
    """None where the estimate lies beyond the scale."""
    zero: float
    threshold: float | None
    label: float
    """Middle of the words beside the threshold."""
    limit_text: str
    low_edge: str
    """Difference at the left edge, in points."""
    high_edge: str
    beyond_low: bool
    beyond_high: bool
    text: str
    """The same in words, for those who do not see it."""


class PlotScale:
    """One scale for all plots of a page, so that their lengths can be compared.

    Verdicts turn on a few points; a gain of fifty would squeeze everything else into a dot, so
    the scale ends at ``MAX_LIMIT`` and what lies beyond gets an arrow.
    """

    def __init__(self, values: Sequence[float]) -> None:
        widest = max((abs(value) for value in values), default=0.0)
        self.limit = min(MAX_LIMIT, max(0.05, math.ceil(widest * 100 / 5) * 5 / 100))
        """Accuracy difference at either edge, a multiple of 0.05."""

    def x(self, difference: float) -> float:
        """Horizontal place of a difference, at the edge if it lies beyond."""
        middle = PLOT_WIDTH / 2
        inside = min(self.limit, max(-self.limit, difference))
        return round(middle + inside / self.limit * (middle - _EDGE), 1)

    def plot(
        self, difference: float, low: float, high: float, *, threshold: float | None = None
    ) -> IntervalPlot:
        """The drawing of one interval."""
        limit = 0.0 if threshold is None else threshold
        return IntervalPlot(
            low=self.x(low),
            high=self.x(high),
            point=self.x(difference) if abs(difference) <= self.limit else None,
            zero=self.x(0.0),
            threshold=None if threshold is None else self.x(threshold),
            label=min(PLOT_WIDTH - _HALF_LABEL, max(_HALF_LABEL, self.x(limit))),
            limit_text=points(limit),
            low_edge=f"−{100 * self.limit:g}",
            high_edge=f"+{100 * self.limit:g}",
            beyond_low=low < -self.limit,
            beyond_high=high > self.limit,
            text=f"{points(difference)} points, interval {points(low)} to {points(high)}",
        )

    def compared(self, versus: Comparison) -> IntervalPlot:
        """The drawing of one comparison."""
        return self.plot(versus.difference, versus.ci_low, versus.ci_high)


def page_scale(verdict: GateVerdict, report: EvalReport | None) -> PlotScale:
    """The scale that fits every interval of a candidate's page."""
    ends = [end for row in verdict.criteria for end in (row.ci_low, row.ci_high) if end is not None]
    for suite in () if report is None else report.suites:
        for versus in (suite.versus_champion, suite.versus_anchor):
            ends += [versus.ci_low, versus.ci_high]
    return PlotScale(ends)


def criterion_plot(row: Criterion, scale: PlotScale) -> IntervalPlot | None:
    """The interval of a criterion against its threshold, if it has one."""
    if row.observed is None or row.ci_low is None or row.ci_high is None:
        return None
    return scale.plot(row.observed, row.ci_low, row.ci_high, threshold=row.threshold)


def points(fraction: float) -> str:
    """A difference of accuracies in percentage points, with sign and a true minus."""
    text = f"{100 * fraction:+.1f}"
    return "0.0" if text in {"+0.0", "-0.0"} else text.replace("-", "−")
