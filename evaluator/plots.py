"""Where the lines of a report's drawings go, in pixels: intervals, histories, budgets."""

from collections.abc import Sequence
from typing import NamedTuple

from tacit.contracts import (
    CampaignShare,
    Comparison,
    Criterion,
    EvalReport,
    GateVerdict,
    PlannedTest,
    ReportOutline,
    SuiteResult,
)
from tacit.contracts.plan import Baseline

WIDTH, PADDING = 320.0, 10.0
HISTORY_WIDTH, HISTORY_HEIGHT = 640.0, 140.0
_AXIS = 46.0


class Bar(NamedTuple):
    """One interval and the thresholds it is read against."""

    label: str
    low: float
    middle: float
    high: float
    thresholds: tuple[float, ...]
    text: str


class Chart(NamedTuple):
    """Both intervals of a suite on one axis."""

    zero: float
    bars: tuple[Bar, Bar]


def draw_chart(suite: SuiteResult, tests: Sequence[PlannedTest] = ()) -> Chart:
    """Where intervals, thresholds and zero lie on the axis they share."""
    asked: list[tuple[Baseline, Comparison]] = [
        ("champion", suite.versus_champion),
        ("anchor", suite.versus_anchor),
    ]
    found = {name: thresholds(suite, tests, name) for name, _ in asked}
    ends = [0.0, *(t for values in found.values() for t in values)]
    ends += [end for _, c in asked for end in (c.ci_low, c.ci_high)]
    low, span = min(ends), (max(ends) - min(ends)) or 1.0

    def pixel(value: float) -> float:
        return round(PADDING + (value - low) / span * (WIDTH - 2 * PADDING), 1)

    def bar(name: Baseline, c: Comparison) -> Bar:
        limits = tuple(pixel(t) for t in found[name])
        return Bar(
            name, pixel(c.ci_low), pixel(c.difference), pixel(c.ci_high), limits, in_words(c)
        )

    first, second = (bar(name, versus) for name, versus in asked)
    return Chart(zero=pixel(0.0), bars=(first, second))


def thresholds(suite: SuiteResult, tests: Sequence[PlannedTest], baseline: Baseline) -> list[float]:
    """What the differences of ``suite`` to ``baseline`` must lie above."""
    return sorted({t.threshold for t in tests if t.baseline == baseline and t.covers(suite)})


def in_words(comparison: Comparison) -> str:
    """Difference and interval in percentage points."""
    low, high = 100 * comparison.ci_low, 100 * comparison.ci_high
    return f"{100 * comparison.difference:+.1f} points [{low:+.1f}, {high:+.1f}]"


class HistoryPlot(NamedTuple):
    """Accuracies on one suite over the reports of a policy line, oldest to the left."""

    candidate: tuple[str, ...]
    """Points of one line for each stretch in which the suite was the same."""
    anchor: tuple[str, ...]
    dots: tuple[tuple[float, float], ...]
    """Candidates."""
    breaks: tuple[float, ...]
    """Where the suite became another."""
    ticks: tuple[tuple[float, str], ...]
    """Heights and percentages of the axis."""
    text: str
    """The same in words, for those who do not see it."""


def draw_history(
    name: str, history: Sequence[ReportOutline], report: EvalReport
) -> HistoryPlot | None:
    """The history of the suite ``name``; None before there are two reports with it."""
    outlines = [*history, ReportOutline.of(report)]
    found = [s for outline in outlines for s in outline.suites if s.name == name]
    if len(found) < 2:
        return None
    values = [v for s in found for v in (s.candidate, s.anchor)]
    low, high = max(0.0, min(values) - 0.02), min(1.0, max(values) + 0.02)

    def x(number: int) -> float:
        return round(_AXIS + number / (len(found) - 1) * (HISTORY_WIDTH - _AXIS - PADDING), 1)

    def y(value: float) -> float:
        height = HISTORY_HEIGHT - 2 * PADDING
        return round(PADDING + (high - value) / (high - low) * height, 1)

    starts = [n for n in range(1, len(found)) if found[n].suite_digest != found[n - 1].suite_digest]
    spans = list(zip([0, *starts], [*starts, len(found)], strict=True))

    def lines(heights: Sequence[float]) -> tuple[str, ...]:
        points = [f"{x(n)},{height}" for n, height in enumerate(heights)]
        return tuple(" ".join(points[start:end]) for start, end in spans)

    candidates = [y(s.candidate) for s in found]
    shares = ", ".join(f"{100 * s.candidate:.1f}" for s in found)
    return HistoryPlot(
        candidate=lines(candidates),
        anchor=lines([y(s.anchor) for s in found]),
        dots=tuple((x(n), height) for n, height in enumerate(candidates)),
        breaks=tuple(round((x(n - 1) + x(n)) / 2, 1) for n in starts),
        ticks=tuple((y(v), f"{100 * v:.0f} %") for v in (low, (low + high) / 2, high)),
        text=f"{len(found)} reports, oldest first: {shares} %; another suite {len(starts)} times",
    )


class Budget(NamedTuple):
    """What is spent of something that must last, as shares of it from 0 to 1."""

    title: str
    spent: float
    """Surely, or before this candidate."""
    maybe: float
    """At most, or by this candidate, beyond ``spent``."""
    text: str


def draw_budgets(verdict: GateVerdict | None) -> list[Budget]:
    """Error probability of the campaign, and loss against the anchor on each suite that has one."""
    if verdict is None:
        return []
    budgets = [] if verdict.campaign is None else [_error_budget(verdict.campaign)]
    drift = [row for row in verdict.criteria if "since the anchor" in row.requirement]
    return budgets + [_drift_budget(row) for row in drift if row.observed is not None]


def _error_budget(share: CampaignShare) -> Budget:
    return Budget(
        title=f"Error probability of campaign {share.campaign}",
        spent=min(1.0, share.before / share.alpha),
        maybe=min(1.0, share.spent / share.alpha),
        text=f"{share.before:.4g} spent before, {share.spent:.4g} on this candidate, "
        f"{share.left:.4g} of {share.alpha:g} left",
    )


def _drift_budget(row: Criterion) -> Budget:
    budget, lost = -(row.threshold or 0.0), 0.0 - (row.observed or 0.0)
    most = 0.0 - (row.ci_low if row.ci_low is not None else -1.0)
    size = budget or 1.0
    spent = min(1.0, max(0.0, lost / size))
    return Budget(
        title=f"Loss since the anchor, {row.name.partition(': ')[2]}",
        spent=spent,
        maybe=min(1.0, max(0.0, most / size)) - spent,
        text=f"{100 * lost:.1f} points lost, {100 * most:.1f} at most, of {100 * budget:g}",
    )
