"""The least number of items, against the statistics themselves."""

import numpy as np
import pytest

from evaluator.sizing import independent_items, least_items
from evaluator.statistics import compare_differences
from tacit.contracts import Suite, SuiteItem, SuiteKind
from tests.builders import user


@pytest.mark.parametrize(("threshold", "alpha"), [(-0.05, 0.001), (-0.2, 0.01), (-0.1, 0.05)])
def test_one_item_less_does_not_show_it(threshold: float, alpha: float) -> None:
    needed = least_items(threshold, alpha=alpha)
    assert needed is not None
    for num_items, shows in ((needed, True), (needed - 1, False)):
        found = compare_differences(
            np.zeros(num_items), np.arange(num_items), confidence=1 - 2 * alpha
        )
        assert (found.ci_low > threshold) is shows


def test_early_looks_cost_items() -> None:
    # 1 - alpha^(1/n): with the whole alpha 688 items would do.
    assert least_items(-0.01, alpha=0.001) == 710


def test_nothing_unchanged_is_better() -> None:
    assert least_items(0.0, alpha=0.01) is None


def test_items_of_one_cluster_are_worth_one() -> None:
    items = tuple(
        SuiteItem(item_id=str(n), prompt=user("p"), expected="a", cluster=f"c{n // 3}")
        for n in range(9)
    )
    assert independent_items(Suite(name="s", kind=SuiteKind.SAFETY, items=items)) == 3
