"""Looks: what is asked next, when it stops, and that stopping early does not raise the error."""

import math

import numpy as np
import pytest

from evaluator.sequential import FIRST_LOOK, Asking, Schedule, Target, targets
from tacit.contracts import PlannedTest, Suite, SuiteItem, SuiteKind
from tacit.contracts.plan import Baseline
from tests import builders
from tests.evaluator.rules import old_world

KEPT = PlannedTest(kind=SuiteKind.REGRESSION, baseline="champion", threshold=-0.03, alpha=0.001)
DRIFT = PlannedTest(suite="old-world", baseline="anchor", threshold=-0.02, alpha=0.01)


def clustered(sizes: list[int]) -> Suite:
    items = tuple(
        SuiteItem(item_id=f"{c}-{i}", prompt=builders.user("?"), expected="", cluster=f"c{c}")
        for c, size in enumerate(sizes)
        for i in range(size)
    )
    return Suite(name="old-world", kind=SuiteKind.REGRESSION, items=items)


def asking(suite: Suite, *tests: PlannedTest) -> Asking:
    found = targets(suite, tests, confidence=0.95)
    return Asking(Schedule(suite, found), found)


def ask_all(under_way: Asking, champion: np.ndarray, anchor: np.ndarray | None = None) -> None:
    """``champion``: differences to it in the order of asking; the anchor's are the same."""
    while under_way.is_open:
        end = under_way.num_asked + len(under_way.wanted)
        seen: dict[Baseline, np.ndarray] = {
            "champion": champion[:end],
            "anchor": (champion if anchor is None else anchor)[:end],
        }
        under_way.look(seen)


def test_every_item_is_asked_once_in_an_order_the_suite_fixes() -> None:
    suite = old_world(1_000)
    first, again = asking(suite, KEPT), asking(suite, KEPT)
    order: list[int] = []
    while first.is_open:
        assert first.wanted == again.wanted
        order += first.wanted
        for under_way in (first, again):
            size = under_way.num_asked + len(under_way.wanted)
            under_way.look({"champion": np.zeros(size) - 0.03, "anchor": np.zeros(size)})
    assert sorted(order) == list(range(1_000))
    assert order != sorted(order)
    assert asking(old_world(1_000, max_new_tokens=17), KEPT).wanted != order[:FIRST_LOOK]


def test_clusters_enter_whole() -> None:
    sizes = [1 + number % 7 for number in range(300)]
    suite = clustered(sizes)
    schedule = Schedule(suite, targets(suite, [KEPT], confidence=0.95))
    for end in schedule.looks:
        asked, rest = (
            {suite.items[i].cluster for i in part}
            for part in (schedule.order[:end], schedule.order[end:])
        )
        assert not asked & rest
    assert schedule.looks[-1] == sum(sizes)
    assert schedule.largest == 7


@pytest.mark.parametrize(("num_items", "tests"), [(255, [KEPT]), (5_000, [])])
def test_small_suites_and_those_nothing_is_decided_on_are_asked_in_one_look(
    num_items: int, tests: list[PlannedTest]
) -> None:
    under_way = asking(old_world(num_items), *tests)
    assert len(under_way.wanted) == num_items
    ask_all(under_way, np.zeros(num_items))
    assert under_way.looks == [num_items]


def test_one_look_keeps_the_whole_error_probability() -> None:
    small = asking(old_world(200), KEPT)
    ask_all(small, np.zeros(200))
    found = small.compare("champion", np.zeros(200))
    assert found.ci_low == pytest.approx(-(1 - 0.001 ** (1 / 200)))
    assert (found.confidence, found.anytime) == (pytest.approx(0.998), False)
    assert found.alpha == pytest.approx(0.001)


def test_several_looks_leave_four_fifths_to_the_last() -> None:
    values = np.zeros(300)
    under_way = asking(old_world(300), KEPT.model_copy(update={"threshold": -0.001}))
    ask_all(under_way, values)
    assert under_way.looks[-1] == 300
    assert under_way.compare("champion", values).ci_low == pytest.approx(-(1 - 0.0008 ** (1 / 300)))


def test_a_clear_gain_stops_early_with_an_interval_above_every_threshold() -> None:
    values = np.random.default_rng(0).permutation(np.repeat([1.0, 0.0, -1.0], [700, 3_000, 300]))
    under_way = asking(old_world(4_000), KEPT, DRIFT)
    ask_all(under_way, values)
    assert under_way.num_asked < 1_000
    seen = values[: under_way.num_asked]
    found = under_way.compare("champion", seen)
    assert found.anytime
    assert -0.03 < found.ci_low < found.difference < found.ci_high
    assert under_way.compare("anchor", seen).ci_low > -0.02


def test_one_failed_test_ends_a_suite_whatever_the_others_would_say() -> None:
    worse = np.where(np.arange(4_000) % 5 == 0, -1.0, 0.0)
    under_way = asking(old_world(4_000), KEPT, DRIFT)
    ask_all(under_way, np.zeros(4_000) - 0.0, worse)
    assert under_way.num_asked < 500
    assert under_way.compare("anchor", worse[: under_way.num_asked]).ci_high < -0.02


def test_the_strictest_test_on_a_baseline_sets_its_interval() -> None:
    loose = KEPT.model_copy(update={"alpha": 0.02, "threshold": 0.0})
    found = targets(old_world(), [loose, KEPT], confidence=0.9)
    assert found["champion"] == Target(0.001, (-0.03, 0.0))
    assert found["anchor"].alpha == pytest.approx(0.05)
    assert found["anchor"].thresholds == ()


def test_error_probability_holds_over_all_looks_and_the_last() -> None:
    """Differences just at the threshold, items in clusters: it is passed at most as often as said.

    At 5 % rather than 0.1 %, so that a few hundred runs can tell.
    """
    random = np.random.default_rng(3)
    test = KEPT.model_copy(update={"alpha": 0.05})
    suite = clustered([4] * 250)
    found = targets(suite, [test], confidence=0.95)
    schedule = Schedule(suite, found)
    num_runs, passed = 400, 0
    for _ in range(num_runs):
        draws = np.repeat(random.random(250), 4)
        mixed = np.where(random.random(1_000) < 0.5, draws, random.random(1_000))
        values = np.where(mixed < 0.07, 1.0, np.where(mixed > 0.90, -1.0, 0.0))
        under_way = Asking(schedule, found)
        ask_all(under_way, values)
        seen = values[: under_way.num_asked]
        passed += under_way.compare("champion", seen).ci_low > -0.03
    assert passed / num_runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / num_runs)
    assert passed  # the boundary is not so wide that the test says nothing
