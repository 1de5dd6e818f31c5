"""An EvalReport as one self-contained HTML page: no scripts, no requests, light and dark."""

from collections.abc import Sequence
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from tacit.contracts import (
    Comparison,
    EvalReport,
    GateVerdict,
    ItemResult,
    ReportOutline,
    SuiteResult,
)

MAX_FLIPS = 200
"""Items shown per suite; the report itself has all of them."""
_WIDTH, _PADDING = 320.0, 8.0

_environment = Environment(
    loader=PackageLoader("evaluator"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


class Bar(NamedTuple):
    """One interval of the chart, in pixels."""

    label: str
    low: float
    middle: float
    high: float
    text: str


class Chart(NamedTuple):
    """Both intervals of a suite on one axis, in pixels."""

    zero: float
    margin: float | None
    bars: tuple[Bar, Bar]


def render_report(
    report: EvalReport,
    *,
    verdict: GateVerdict | None = None,
    history: Sequence[ReportOutline] = (),
    margin: float | None = None,
) -> str:
    """HTML of ``report``. ``margin`` (a share, e.g. 0.03) draws the drop that is tolerated.

    Everything from outside is escaped: answers and prompts may hold markup.
    """
    suites = [(s, draw_chart(s, margin), flips(s, MAX_FLIPS)) for s in report.suites]
    return _environment.get_template("report.html").render(
        report=report, suites=suites, margin=margin, width=_WIDTH, max_flips=MAX_FLIPS
    )


def draw_chart(suite: SuiteResult, margin: float | None) -> Chart:
    """Where the intervals of ``suite``, the zero line and the margin lie on a common axis."""
    comparisons = (suite.versus_champion, suite.versus_anchor)
    ends = [0.0, *(e for c in comparisons for e in (c.ci_low, c.ci_high))]
    if margin is not None:
        ends.append(-margin)
    low, high = min(ends), max(ends)
    span = (high - low) or 1.0

    def pixel(value: float) -> float:
        return round(_PADDING + (value - low) / span * (_WIDTH - 2 * _PADDING), 1)

    def bar(label: str, c: Comparison) -> Bar:
        return Bar(label, pixel(c.ci_low), pixel(c.difference), pixel(c.ci_high), in_words(c))

    return Chart(
        zero=pixel(0.0),
        margin=None if margin is None else pixel(-margin),
        bars=(bar("champion", comparisons[0]), bar("anchor", comparisons[1])),
    )


def in_words(comparison: Comparison) -> str:
    """Difference and interval in percentage points."""
    low, high = 100 * comparison.ci_low, 100 * comparison.ci_high
    return f"{100 * comparison.difference:+.1f} points [{low:+.1f}, {high:+.1f}]"


def flips(suite: SuiteResult, limit: int) -> Sequence[ItemResult]:
    """Items whose score changed from the champion's: those that got worse first."""
    changed = [item for item in suite.items if item.candidate != item.champion]
    return sorted(changed, key=lambda item: item.candidate - item.champion)[:limit]
