"""Intervals: against hand-computed and published numbers, in degenerate cases, by simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from evaluator.statistics import cluster_robust_error, compare, share_lower_bound
from tacit.errors import EvaluationError

ALONE = [""]


def test_cluster_robust_error_equals_the_value_of_statsmodels() -> None:
    # OLS(values, ones).fit(cov_type="cluster", cov_kwds={"groups": …}).bse[0], statsmodels 0.15.0
    values = np.array([1, 0, 0, -1, 1, 0, 0, 1, -1, 0], dtype=float)
    members = np.array([0, 0, 0, 1, 1, 2, 2, 2, 3, 4])
    assert cluster_robust_error(values, members) == pytest.approx(0.16733200530681505, rel=1e-12)


def test_without_clusters_it_is_the_paired_t_interval() -> None:
    random = np.random.default_rng(0)
    candidate, champion = random.integers(0, 2, (2, 400)).astype(float)
    got = compare(candidate, champion, ALONE * 400, confidence=0.95)
    wanted = stats.ttest_rel(candidate, champion).confidence_interval(0.95)
    assert (got.ci_low, got.ci_high) == pytest.approx((wanted.low, wanted.high))


def test_copies_in_a_cluster_add_no_certainty() -> None:
    random = np.random.default_rng(1)
    candidate, champion = random.integers(0, 2, (2, 100)).astype(float)
    single = compare(candidate, champion, [str(i) for i in range(100)], confidence=0.95)
    copies = compare(
        np.repeat(candidate, 5).tolist(),
        np.repeat(champion, 5).tolist(),
        [str(i) for i in range(100) for _ in range(5)],
        confidence=0.95,
    )
    assert copies.standard_error == pytest.approx(single.standard_error)
    assert (copies.ci_low, copies.ci_high) == pytest.approx((single.ci_low, single.ci_high))


@pytest.mark.parametrize("num_items", [5, 30, 1_000])
def test_no_change_on_any_item_proves_no_more_than_the_rule_of_three(num_items: int) -> None:
    got = compare([1.0] * num_items, [1.0] * num_items, ALONE * num_items, confidence=0.95)
    # With no loss seen the exact bound p solves (1 - p)^n = 0.025.
    wanted = 1 - 0.025 ** (1 / num_items)
    assert got.standard_error == 0
    assert (got.ci_low, got.ci_high) == pytest.approx((-wanted, wanted))


def test_no_change_within_few_clusters_counts_the_clusters_only() -> None:
    clusters = [str(i // 50) for i in range(500)]
    got = compare([1.0] * 500, [1.0] * 500, clusters, confidence=0.95)
    assert got.ci_low == pytest.approx(-(1 - 0.025 ** (1 / 10)))


def test_one_loss_among_many_widens_the_interval_downwards() -> None:
    candidate = [0.0] + [1.0] * 199
    got = compare(candidate, [1.0] * 200, ALONE * 200, confidence=0.95)
    bound = stats.binomtest(1, 200).proportion_ci(0.95, method="exact").high
    assert got.ci_low == pytest.approx(-bound)


def test_a_single_cluster_concludes_nothing() -> None:
    got = compare([1.0] * 40, [0.0] * 40, ["same"] * 40, confidence=0.95)
    assert (got.ci_low, got.ci_high, got.standard_error) == (-1, 1, 1)


def test_all_lost_is_all_lost() -> None:
    got = compare([0.0] * 40, [1.0] * 40, ALONE * 40, confidence=0.95)
    assert got.difference == got.ci_low == -1
    assert -1 < got.ci_high < -0.9


@pytest.mark.parametrize(
    ("candidate", "clusters"), [([], []), ([1.0], ["a", "b"]), ([1.0, 1.0], ["a", "b"])]
)
def test_unequal_lengths_and_nothing_are_refused(
    candidate: list[float], clusters: list[str]
) -> None:
    with pytest.raises(EvaluationError):
        compare(candidate, candidate[:1], clusters, confidence=0.95)


@pytest.mark.parametrize(
    ("loss", "win", "num_items"), [(0.02, 0.0, 200), (0.05, 0.03, 300), (0.1, 0.3, 100)]
)
def test_intervals_cover_the_truth(loss: float, win: float, num_items: int) -> None:
    random = np.random.default_rng(2)
    covered = 0
    for _ in range(1_000):
        draws = random.random(num_items)
        candidate, champion = np.full((2, num_items), 0.5)
        candidate = np.where(draws < loss, 0.0, np.where(draws > 1 - win, 1.0, 0.5))
        champion = np.where(draws < loss, 1.0, np.where(draws > 1 - win, 0.0, 0.5))
        got = compare(candidate.tolist(), champion.tolist(), ALONE * num_items, confidence=0.95)
        covered += got.ci_low <= win - loss <= got.ci_high
    # 0.93 is three standard errors below 0.95; the interval that trusts t alone falls short of
    # it in the first case, where one simulated suite in fifty shows no loss at all.
    assert covered / 1_000 >= 0.93


def test_intervals_cover_the_truth_with_clusters() -> None:
    random = np.random.default_rng(3)
    clusters = [str(i // 5) for i in range(500)]
    covered = 0
    for _ in range(600):
        lean = np.repeat(random.beta(1, 4, 100), 5)
        candidate, champion = (random.random((2, 500)) < [1 - lean, np.full(500, 0.8)]) * 1.0
        got = compare(candidate.tolist(), champion.tolist(), clusters, confidence=0.95)
        covered += got.ci_low <= 0 <= got.ci_high
    assert covered / 600 >= 0.92


scores = st.lists(
    st.tuples(
        st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0]), st.sampled_from(["", "a", "b"])
    ),
    min_size=1,
    max_size=40,
)


@given(scores)
def test_intervals_hold_the_difference_and_mirror_when_policies_swap(
    rows: list[tuple[float, float, str]],
) -> None:
    candidate, champion, clusters = map(list, zip(*rows, strict=True))
    got = compare(candidate, champion, clusters, confidence=0.9)
    swapped = compare(champion, candidate, clusters, confidence=0.9)
    assert -1 <= got.ci_low <= got.difference <= got.ci_high <= 1
    assert got.ci_low < got.ci_high
    assert swapped.ci_low == pytest.approx(-got.ci_high)


def test_share_lower_bound_is_the_exact_one() -> None:
    wanted = stats.binomtest(6, 7, alternative="greater").proportion_ci(0.95, method="exact").low
    assert share_lower_bound(6, 7, confidence=0.95) == pytest.approx(wanted)
    assert share_lower_bound(0, 7, confidence=0.95) == 0
    assert share_lower_bound(0, 0, confidence=0.95) == 0
