"""The betting sequence: against a slow second implementation, and by simulation at every look."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluator.confidence_sequence import (
    STAKES,
    Seen,
    is_above,
    log_capital,
    lower_bound,
    upper_bound,
)


def counted(sums: list[float], sizes: list[int] | None = None, *, largest: int = 1) -> Seen:
    ones = [1] * len(sums)
    columns = (np.asarray(c, dtype=float) for c in (sums, sizes or ones, ones))
    return Seen(*columns, largest)


def slow_capital(sums: list[int], sizes: list[int], theta: Fraction, *, largest: int) -> Fraction:
    """As the paper writes it: observations x from 0 to 1, a mean m under test and bets from 0 to
    1/m; multiplied out cluster by cluster, in fractions."""
    mean = (theta + 1) / 2
    capitals = []
    for stake in STAKES:
        capital = Fraction(1)
        bet = Fraction(float(stake)) / mean
        for total, size in zip(sums, sizes, strict=True):
            share_of_largest = Fraction(total + size, 2 * largest)
            capital *= 1 + bet * (share_of_largest - mean * Fraction(size, largest))
        capitals.append(capital)
    return sum(capitals, Fraction(0)) / len(capitals)


clusters = st.lists(
    st.integers(1, 4).flatmap(lambda size: st.tuples(st.integers(-size, size), st.just(size))),
    min_size=1,
    max_size=30,
)


@given(clusters, st.fractions(-Fraction(9, 10), 1, max_denominator=50))
def test_the_capital_is_that_of_the_slow_implementation(
    rows: list[tuple[int, int]], theta: Fraction
) -> None:
    sums, sizes = [row[0] for row in rows], [row[1] for row in rows]
    seen = counted([float(s) for s in sums], sizes, largest=4)
    wanted = slow_capital(sums, sizes, theta, largest=4)
    assert log_capital(seen, float(theta)) == pytest.approx(math.log(wanted), abs=1e-9)


@settings(max_examples=25)
@given(clusters)
def test_the_bound_is_where_the_capital_reaches_its_goal_on_a_fine_grid(
    rows: list[tuple[int, int]],
) -> None:
    sums, sizes = [row[0] for row in rows], [row[1] for row in rows]
    seen = counted([float(s) for s in sums], sizes, largest=4)
    low, high = lower_bound(seen, alpha=0.05), upper_bound(seen, alpha=0.05)
    assert -1 <= low < seen.mean + 1e-12
    assert seen.mean - 1e-12 < high <= 1
    grid = np.linspace(-0.99, 0.99, 100)
    refuted = [is_above(seen, theta, alpha=0.05) for theta in grid]
    assert refuted == [bool(theta < low) for theta in grid]  # all below the bound and none above


def test_nothing_seen_lost_refutes_a_loss_as_soon_as_betting_nearly_all_does() -> None:
    # Capital of the stake 0.97 alone: (1 + 0.97 · 0.03 / 0.97)^n; another eleven share the start.
    needed = math.log(12 / 0.001) / math.log1p(0.97 * 0.03 / 0.97)
    same = [0.0] * math.ceil(needed)
    assert is_above(counted(same), -0.03, alpha=0.001)
    assert not is_above(counted(same[: round(0.7 * needed)]), -0.03, alpha=0.001)


def test_no_bet_refutes_what_was_seen() -> None:
    assert lower_bound(counted([-1.0] * 50), alpha=0.1) == -1
    assert upper_bound(counted([1.0] * 50), alpha=0.1) == 1


def walk(random: np.random.Generator, win: float, loss: float, num_items: int) -> np.ndarray:
    draws = random.random(num_items)
    return np.where(draws < win, 1.0, np.where(draws > 1 - loss, -1.0, 0.0))


@pytest.mark.parametrize(("win", "loss"), [(0.08, 0.11), (0.0, 0.03), (0.005, 0.035)])
def test_looking_again_and_again_refutes_the_truth_no_more_often_than_stated(
    win: float, loss: float
) -> None:
    random = np.random.default_rng(0)
    num_runs, wrong = 300, 0
    for _ in range(num_runs):
        values = walk(random, win, loss, 1_500)
        wrong += any(
            is_above(counted_up(values[:size]), win - loss, alpha=0.05)
            for size in range(50, 1_501, 50)
        )
    # Three standard errors over 0.05.
    assert wrong / num_runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / num_runs)


def counted_up(values: np.ndarray) -> Seen:
    kinds, counts = np.unique(values, return_counts=True)
    return Seen(kinds, np.ones(len(kinds)), counts.astype(float), 1)


def test_a_bound_by_the_normal_distribution_would_not_bear_so_many_looks() -> None:
    random = np.random.default_rng(0)
    num_runs, wrong = 300, 0
    for _ in range(num_runs):
        values = walk(random, 0.08, 0.11, 1_500)
        sizes = np.arange(50, 1_501, 50)
        means = np.cumsum(values)[sizes - 1] / sizes
        errors = np.sqrt((np.cumsum(values**2)[sizes - 1] / sizes - means**2) / sizes)
        wrong += bool(np.any(means - 1.645 * errors > -0.03))
    assert wrong / num_runs > 0.12


def test_it_holds_when_the_items_of_a_cluster_move_together() -> None:
    random = np.random.default_rng(1)
    num_runs, wrong = 250, 0
    for _ in range(num_runs):
        sizes = random.integers(1, 6, 300)
        sums = walk(random, 0.10, 0.13, 300) * sizes  # whole clusters are won or lost
        wrong += any(
            is_above(Seen(sums[:n], sizes[:n].astype(float), np.ones(n), 5), -0.03, alpha=0.05)
            for n in range(15, 301, 15)
        )
    assert wrong / num_runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / num_runs)


def test_a_clear_difference_is_seen_early() -> None:
    random = np.random.default_rng(2)
    values = walk(random, 0.146, 0.046, 2_000)  # 10 points better
    assert is_above(counted_up(values[:600]), -0.03, alpha=0.0002)
