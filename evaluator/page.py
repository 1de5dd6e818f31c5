"""An EvalReport as one self-contained HTML page: no scripts, no requests, light and dark."""

from collections.abc import Sequence
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from evaluator.plots import (
    HISTORY_HEIGHT,
    HISTORY_WIDTH,
    WIDTH,
    Chart,
    HistoryPlot,
    draw_budgets,
    draw_chart,
    draw_history,
)
from tacit.contracts import (
    EvalReport,
    GateVerdict,
    ItemResult,
    ReportOutline,
    SuiteResult,
    short,
)

MAX_FLIPS = 200
"""Items shown per suite; the report itself has all of them."""

_environment = Environment(
    loader=PackageLoader("evaluator"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters["short"] = short


class Section(NamedTuple):
    """What is shown of one suite."""

    suite: SuiteResult
    chart: Chart
    history: HistoryPlot | None
    flips: Sequence[ItemResult]


def render_report(
    report: EvalReport,
    *,
    verdict: GateVerdict | None = None,
    history: Sequence[ReportOutline] = (),
) -> str:
    """HTML of ``report``, with the budgets of ``verdict`` and what ``history`` said before.

    Everything from outside is escaped: answers and prompts may hold markup.
    """
    sections = [
        Section(
            suite,
            draw_chart(suite, report.tests),
            draw_history(suite.name, history, report),
            flips(suite, MAX_FLIPS),
        )
        for suite in report.suites
    ]
    return _environment.get_template("report.html").render(
        report=report,
        verdict=verdict,
        budgets=draw_budgets(verdict),
        sections=sections,
        width=WIDTH,
        history_width=HISTORY_WIDTH,
        history_height=HISTORY_HEIGHT,
        max_flips=MAX_FLIPS,
    )


def flips(suite: SuiteResult, limit: int) -> Sequence[ItemResult]:
    """Items whose score changed from the champion's: those that got worse first."""
    changed = [item for item in suite.items if item.candidate != item.champion]
    return sorted(changed, key=lambda item: item.candidate - item.champion)[:limit]
