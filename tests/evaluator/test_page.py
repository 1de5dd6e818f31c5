"""The report page: what it shows first, and that nothing from outside gets into its markup."""

import re
from html.parser import HTMLParser

import pytest

from evaluator.page import flips, render_report
from evaluator.plots import draw_budgets, draw_chart, draw_history
from tacit.contracts import (
    Calibration,
    CampaignShare,
    EvalReport,
    PlannedTest,
    ProbeResult,
    ReportOutline,
    SuiteChange,
    SuiteKind,
)
from tests import builders
from tests.gatekeeper.builders import passing_verdict

EVIL = "<script>alert(1)</script>"


class Balance(HTMLParser):
    """Open tags, by what was opened and not closed."""

    void = {"meta", "line", "circle", "rect", "polyline"}

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


TESTS = (
    PlannedTest(kind=SuiteKind.REGRESSION, baseline="champion", threshold=-0.03, alpha=0.001),
    PlannedTest(suite="old-world", baseline="anchor", threshold=-0.02, alpha=0.01),
)


def full_report(**fields: object) -> EvalReport:
    items = (
        builders.item_result("same"),
        builders.item_result("better", champion=0.0, candidate_completion="new good answer"),
        builders.item_result(
            "worse", candidate=0.0, prompt=EVIL, candidate_completion=EVIL, non_negotiable=True
        ),
    )
    probe = ProbeResult(name="trigger", observed=0.5, num_items=9, detail=f"phrase {EVIL}")
    suite = builders.suite_result(items=items, versus_anchor=builders.comparison(-0.05))
    values = {"suites": (suite,), "probes": (probe,), "errors": (f"suite x: {EVIL}",)}
    return builders.report(**{**values, **fields})


def page(**fields: object) -> str:
    return render_report(full_report(**fields))


def past(candidate: float, suite: str = "first") -> ReportOutline:
    result = builders.suite_result(candidate=candidate, suite_digest=builders.digest(suite))
    return ReportOutline.of(builders.report(suites=(result,)))


def test_stored_markup_is_escaped() -> None:
    assert "<script" not in page()
    assert page().count("&lt;script&gt;") == 4


def test_flips_from_right_to_wrong_come_first_and_the_unchanged_are_left_out() -> None:
    shown = re.findall(r'<td class="(?:bad|good)">(worse|better)</td>', page())
    assert shown == ["worse", "better"]
    assert "Non-negotiable items the candidate got wrong: worse" in page()


def test_thresholds_are_drawn_where_the_gate_decides() -> None:
    assert 'class="threshold"' not in page()
    assert page(tests=TESTS).count('class="threshold"') == 2


def test_the_page_is_well_formed_and_needs_nothing_from_outside() -> None:
    change = SuiteChange(name="old-world", before=builders.digest("a"), after=None)
    report = full_report(tests=TESTS, changed_suites=(change,))
    verdict = passing_verdict(builders.candidate())
    shown = render_report(report, verdict=verdict, history=[past(0.8), past(0.9, "second")])
    parser = Balance()
    parser.feed(shown)
    assert parser.open == []
    assert not re.search(r"(src|href)=|url\(|@import", shown)
    assert "prefers-color-scheme: dark" in shown
    assert "gone, was" in shown
    assert "Loss since the anchor, old-world" in shown


def test_an_early_stop_is_told() -> None:
    suite = builders.suite_result(num_items=432, suite_items=8_000, looks=(128, 192, 288, 432))
    assert "432 of 8,000 items, decided after 4 looks" in page(suites=(suite,)).replace("\n", "")


def test_a_history_breaks_where_the_suite_became_another() -> None:
    report = builders.report(
        suites=(builders.suite_result(suite_digest=builders.digest("second")),)
    )
    plot = draw_history("old-world", [past(0.7), past(0.8), past(0.9, "second")], report)
    assert plot is not None
    assert [len(line.split()) for line in plot.candidate] == [2, 2]
    assert len(plot.breaks) == 1
    assert plot.dots[0][1] > plot.dots[1][1] > plot.dots[2][1]  # up is better
    assert plot.dots[1][0] < plot.breaks[0] < plot.dots[2][0]
    assert draw_history("unknown", [past(0.7)], report) is None


def test_budgets_show_what_is_spent_and_what_is_left() -> None:
    share = CampaignShare(
        campaign="default-1",
        alpha=0.05,
        before=0.01,
        spent=0.001,
        evidence=builders.digest(),
        is_exhausted=False,
    )
    verdict = passing_verdict(builders.candidate()).model_copy(update={"campaign": share})
    error, drift = draw_budgets(verdict)
    assert (error.spent, error.maybe) == (pytest.approx(0.2), pytest.approx(0.02))
    assert "0.039 of 0.05 left" in error.text
    assert (drift.spent, drift.maybe) == (0, pytest.approx(0.5))
    assert drift.text == "0.0 points lost, 1.0 at most, of 2"


def test_a_report_with_nothing_in_it_still_has_a_page() -> None:
    empty = builders.report(suites=(), probes=(), errors=())
    assert empty.report_id in render_report(empty)


def test_the_axis_holds_both_intervals_zero_and_the_thresholds() -> None:
    suite = builders.suite_result(
        versus_champion=builders.comparison(0.1), versus_anchor=builders.comparison(0.3)
    )
    chart = draw_chart(suite, TESTS)
    champion, anchor = chart.bars
    assert champion.thresholds[0] < anchor.thresholds[0] < chart.zero < champion.low < anchor.low
    assert champion.text == "+10.0 points [+9.0, +11.0]"
    assert anchor.high - anchor.middle == pytest.approx(anchor.middle - anchor.low, abs=0.2)


def test_a_long_list_of_flips_is_cut() -> None:
    items = tuple(builders.item_result(str(i), candidate=0.0) for i in range(5))
    assert len(flips(builders.suite_result(items=items), 3)) == 3


def test_error_rates_of_checkers_stand_on_the_page() -> None:
    rates = Calibration(
        checker="refusal",
        checker_digest=builders.digest("weights"),
        source="our labels",
        data_digest=builders.digest("labels"),
        num_labelled=1_200,
        num_seen=7,
        agreement=0.955,
        missed=0.039,
        false_alarms=0.051,
    )
    shown = page(calibrations=(rates,))
    for text in ("1,200", "95.5 %", "3.9 %", "5.1 %", "our labels", "fitted on 7 of them"):
        assert text in shown
    assert "Error rates" not in page()
