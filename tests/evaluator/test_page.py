"""The report page: what it shows first, and that nothing from outside gets into its markup."""

import re
from html.parser import HTMLParser

import pytest

from evaluator.page import draw_chart, flips, render_report
from tacit.contracts import ProbeResult
from tests import builders

EVIL = "<script>alert(1)</script>"


class Balance(HTMLParser):
    """Open tags, by what was opened and not closed."""

    void = {"meta", "line", "circle"}

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


def page(margin: float | None = None) -> str:
    items = (
        builders.item_result("same"),
        builders.item_result("better", champion=0.0, candidate_completion="new good answer"),
        builders.item_result(
            "worse", candidate=0.0, prompt=EVIL, candidate_completion=EVIL, non_negotiable=True
        ),
    )
    probe = ProbeResult(name="trigger", observed=0.5, num_items=9, detail=f"phrase {EVIL}")
    suite = builders.suite_result(items=items, versus_anchor=builders.comparison(-0.05))
    report = builders.report(suites=(suite,), probes=(probe,), errors=(f"suite x: {EVIL}",))
    return render_report(report, margin=margin)


def test_stored_markup_is_escaped() -> None:
    assert "<script" not in page()
    assert page().count("&lt;script&gt;") == 4


def test_flips_from_right_to_wrong_come_first_and_the_unchanged_are_left_out() -> None:
    shown = re.findall(r'<td class="(?:bad|good)">(worse|better)</td>', page())
    assert shown == ["worse", "better"]
    assert "Non-negotiable items the candidate got wrong: worse" in page()


def test_the_margin_is_drawn_when_it_is_known() -> None:
    assert 'class="margin"' not in page()
    assert 'class="margin"' in page(0.03)
    assert "−3" in page(0.03)


def test_the_page_is_well_formed_and_needs_nothing_from_outside() -> None:
    parser = Balance()
    parser.feed(page(0.02))
    assert parser.open == []
    assert not re.search(r"(src|href)=|url\(|@import", page())
    assert "prefers-color-scheme: dark" in page()


def test_a_report_with_nothing_in_it_still_has_a_page() -> None:
    empty = builders.report(suites=(), probes=(), errors=())
    assert empty.report_id in render_report(empty)


def test_the_axis_holds_both_intervals_zero_and_the_margin() -> None:
    suite = builders.suite_result(
        versus_champion=builders.comparison(0.1), versus_anchor=builders.comparison(0.3)
    )
    chart = draw_chart(suite, 0.05)
    assert chart.margin is not None
    assert chart.margin < chart.zero < chart.bars[0].low < chart.bars[1].low
    assert chart.bars[0].text == "+10.0 points [+9.0, +11.0]"
    assert chart.bars[1].high - chart.bars[1].middle == pytest.approx(
        chart.bars[1].middle - chart.bars[1].low, abs=0.2
    )


def test_a_long_list_of_flips_is_cut() -> None:
    items = tuple(builders.item_result(str(i), candidate=0.0) for i in range(5))
    assert len(flips(builders.suite_result(items=items), 3)) == 3
