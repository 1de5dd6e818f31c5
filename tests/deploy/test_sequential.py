"""The sequential test of two arms: its verdicts, its error probability, who can turn it."""

import random
from collections.abc import Iterator
from itertools import count

import numpy as np
import pytest

from deploy.betting import Table, largest_stake, log_capital
from deploy.sequential import ArmTest
from tacit.contracts import Arm
from tacit.errors import InvalidInputError

Sent = tuple[Arm, str, float]


def feedback(
    seed: int,
    *,
    champion: float = 0.8,
    canary: float,
    share: float = 0.5,
    per_subject: float = 1.0,
    alike: float = 0.0,
) -> Iterator[Sent]:
    """Feedback without end; ``alike`` is the correlation within a subject."""
    drawn = random.Random(seed)
    subjects: list[tuple[Arm, str, float]] = []
    for number in count():
        if not subjects or drawn.random() < 1 / per_subject:
            arm: Arm = "canary" if drawn.random() < share else "champion"
            mean = canary if arm == "canary" else champion
            scale = 1 / alike - 1 if alike else 0.0
            own = drawn.betavariate(mean * scale, (1 - mean) * scale) if alike else mean
            subjects.append((arm, f"s-{number}", own))
            chosen = subjects[-1]
        else:
            chosen = drawn.choice(subjects)
        yield chosen[0], chosen[1], float(drawn.random() < chosen[2])


def run(test: ArmTest, sent: Iterator[Sent], *, limit: int) -> int:
    """How many events until a verdict, or ``limit``."""
    for number, event in zip(range(1, limit + 1), sent, strict=False):
        if test.update(*event) != "continue":
            return number
    return limit


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_much_worse_canary_is_rolled_back_with_its_numbers(share: float) -> None:
    test = ArmTest()
    needed = run(test, feedback(1, canary=0.5, share=share), limit=2_000)
    summary = test.summary
    assert summary.verdict == "rollback"
    assert needed < 800
    assert summary.e_value >= 20
    assert summary.difference_high < 0
    assert "worse" in summary.why
    assert summary.champion.num_feedback + summary.canary.num_feedback == needed


def test_a_better_canary_is_promoted_by_its_interval() -> None:
    test = ArmTest(margin=0.03)
    run(test, feedback(2, canary=0.9), limit=3_000)
    summary = test.summary
    assert summary.verdict == "promote"
    assert summary.difference_low > -0.03
    assert summary.difference is not None
    assert summary.difference_low <= summary.difference <= summary.difference_high
    assert summary.canary.mean is not None
    assert summary.canary.low < summary.canary.mean < summary.canary.high


@pytest.mark.parametrize("per_subject", [1.0, 6.0])
@pytest.mark.parametrize("alike", [0.0, 0.5])
def test_equal_releases_are_rarely_rolled_back_however_often_one_looks(
    per_subject: float, alike: float
) -> None:
    num_wrong = 0
    for seed in range(120):
        test = ArmTest(alpha=0.05, margin=0.001)
        run(test, feedback(seed, canary=0.8, per_subject=per_subject, alike=alike), limit=400)
        num_wrong += test.verdict == "rollback"
    # 120 runs at 5 % give more than 12 in fewer than 1 of 100 cases.
    assert num_wrong <= 12


def test_subjects_that_repeat_themselves_are_no_more_evidence() -> None:
    """Each says the same twenty times: counted by event, such noise would look like proof."""
    num_wrong = 0
    for seed in range(100):
        test = ArmTest(alpha=0.05, margin=0.001)
        for arm, subject, success in (
            next_ for next_, _ in zip(feedback(seed, canary=0.8), range(60), strict=False)
        ):
            for _ in range(20):
                test.update(arm, subject, success)
        num_wrong += test.verdict == "rollback"
    assert num_wrong <= 10


def test_one_hostile_subject_rolls_back_no_more_than_chance() -> None:
    num_wrong = 0
    for seed in range(100):
        test = ArmTest(margin=0.001)
        for event, _ in zip(feedback(seed, canary=0.8), range(150), strict=False):
            test.update(*event)
            for _ in range(5):
                test.update("canary", "hostile", 0.0)
                test.update("champion", "hostile", 1.0)
        num_wrong += test.verdict == "rollback"
    assert num_wrong <= 10


def test_a_vote_at_most_doubles_what_was_won() -> None:
    """A canary's failure in its block, at any centre and ratio, beside no bet at all."""
    for centre in (0.01, 0.5, 0.99):
        for m, r in ((1, 1), (1, 8), (8, 1)):
            stake = largest_stake(centre, m, r)
            for success, lean, signed in ((0.0, -r / (m + r), -r * stake), (1.0, 0, m * stake)):
                row = [np.array([value]) for value in (success, centre, lean, signed)]
                assert log_capital(Table(*row), 0.0) <= np.log(2)


def test_a_bet_wins_nothing_on_average_whatever_the_centre() -> None:
    """Every block of Bernoulli votes with the same mean, summed over all its outcomes."""
    for mean in (0.1, 0.8):
        for centre in (0.2, 0.9):
            for m, r in ((1, 1), (1, 3), (3, 1)):
                assert _expected(mean, mean, centre, m, r) <= 1 + 1e-12
                assert _expected(mean, mean - 0.05, centre, m, r) < 1
                assert _expected(mean, mean + 0.1, centre, m, r, loss=0.1) <= 1 + 1e-12


def _expected(
    canary: float, champion: float, centre: float, m: int, r: int, *, loss: float = 0.0
) -> float:
    stake, total = largest_stake(centre, m, r), 0.0
    lean = np.array([-r / (m + r)] * m + [m / (m + r)] * r)
    signed = np.array([-r * stake] * m + [m * stake] * r)
    means = np.array([canary] * m + [champion] * r)
    for outcome in range(2 ** (m + r)):
        success = np.array([outcome >> place & 1 for place in range(m + r)], dtype=float)
        chance = np.prod(np.where(success == 1, means, 1 - means))
        table = Table(success, np.full(m + r, centre), lean, signed)
        total += chance * np.exp(log_capital(table, loss))
    return float(total)


def test_a_loss_within_the_tolerance_is_no_reason() -> None:
    strict, lenient = ArmTest(margin=0.001), ArmTest(margin=0.001, tolerance=0.1)
    for event, _ in zip(feedback(5, canary=0.72), range(3_000), strict=False):
        strict.update(*event)
        lenient.update(*event)
    assert strict.verdict == "rollback"
    assert lenient.verdict == "continue"


def test_after_enough_feedback_without_evidence_against_it_a_canary_goes_on() -> None:
    test = ArmTest(margin=0.05, min_feedback=50, max_feedback=150)
    run(test, feedback(8, canary=0.8), limit=2_000)
    assert (test.verdict, test.summary.canary.num_feedback) == ("promote", 150)
    assert "enough feedback" in test.summary.why


def test_a_verdict_stays() -> None:
    test = ArmTest()
    run(test, feedback(1, canary=0.5), limit=2_000)
    for number in range(500):
        test.update("canary", f"new-{number}", 1.0)
    assert test.verdict == "rollback"


def test_nothing_is_promoted_before_the_least_feedback() -> None:
    test = ArmTest(margin=0.3, min_feedback=500)
    run(test, feedback(2, canary=0.95), limit=5_000)
    assert (test.verdict, test.summary.canary.num_feedback) == ("promote", 500)


def test_without_feedback_nothing_is_known() -> None:
    summary = ArmTest().summary
    assert (summary.verdict, summary.difference, summary.e_value) == ("continue", None, 1.0)
    assert (summary.difference_low, summary.difference_high) == (-1, 1)
    assert (summary.canary.low, summary.canary.high, summary.canary.mean) == (0, 1, None)


@pytest.mark.parametrize("success", [-0.1, 1.1, float("nan")])
def test_what_is_no_success_is_refused(success: float) -> None:
    with pytest.raises(InvalidInputError):
        ArmTest().update("canary", "s", success)
