"""Off-policy estimates against hand-counted and enumerated cases, and what they refuse."""

from itertools import product

import numpy as np
import pytest

from evaluator.off_policy import (
    BanditLog,
    doubly_robust_terms,
    effective_sample_size,
    estimate_values,
    ips_terms,
    read_log,
    snips_terms,
)
from evaluator.reward_model import cross_fitted, prompt_features
from evaluator.statistics import Floats
from tacit.contracts import ArmValue, ValueReport
from tacit.errors import EvaluationError


def logged(
    num_interactions: int = 400, *, seed: int = 0, clusters: list[str] | None = None
) -> BanditLog:
    """Arm b is drawn with 0.2 or 0.6, and is right more often where it is drawn more often."""
    draw = np.random.default_rng(seed)
    likes_b = draw.random(num_interactions) < 0.5
    share_b = np.where(likes_b, 0.6, 0.2)
    is_b = draw.random(num_interactions) < share_b
    rewards = draw.random(num_interactions) < np.where(likes_b, 0.8, 0.3)
    return read_log(
        np.where(is_b, "b", "a").tolist(),
        np.where(is_b, share_b, 1 - share_b).tolist(),
        rewards.astype(float).tolist(),
        clusters or [""] * num_interactions,
    )


def constant(log: BanditLog, value: float = 0.5) -> Floats:
    return np.full((len(log.arms), len(log.names)), value)


def by_name(report: ValueReport) -> dict[str, ArmValue]:
    return {value.arm: value for value in report.arms}


def test_estimates_are_what_they_are_by_hand() -> None:
    log = read_log(["a", "b", "a", "b"], [0.5, 0.5, 0.8, 0.2], [1, 0, 0, 1], [""] * 4)
    found = by_name(estimate_values(log, np.asarray([[0.5, 0.25]] * 4)))
    assert found["a"].ips.value == pytest.approx(2 / 4)
    assert found["b"].ips.value == pytest.approx(5 / 4)
    assert found["a"].snips.value == pytest.approx(2 / (2 + 1.25))
    assert found["b"].snips.value == pytest.approx(5 / 7)
    assert found["a"].doubly_robust.value == pytest.approx(0.5 + (2 * 0.5 - 1.25 * 0.5) / 4)
    assert found["b"].doubly_robust.value == pytest.approx(0.25 + (-2 * 0.25 + 5 * 0.75) / 4)
    assert (found["a"].direct, found["a"].observed) == (0.5, 0.5)
    assert found["b"].effective_sample_size == pytest.approx(49 / 29)


def test_weighted_estimates_are_unbiased_whatever_the_model_says() -> None:
    """Over all four logs that two questions and two arms can give, by their probabilities."""
    rewards = np.asarray([[1.0, 0.0], [0.0, 1.0]])
    shares = np.asarray([[0.9, 0.1], [0.3, 0.7]])
    model = np.asarray([[0.2, 0.9], [0.6, 0.1]])
    mean_ips, mean_dr = np.zeros(2), np.zeros(2)
    for drawn in product((0, 1), repeat=2):
        arms = np.asarray(drawn)
        chosen = shares[[0, 1], arms]
        log = BanditLog(("a", "b"), arms, chosen, rewards[[0, 1], arms], np.asarray([0, 1]))
        mean_ips += chosen.prod() * ips_terms(log.weights, log.rewards).mean(axis=0)
        terms = doubly_robust_terms(log.weights, log.rewards, model)
        mean_dr += chosen.prod() * terms.mean(axis=0)
    assert mean_ips == pytest.approx(rewards.mean(axis=0))
    assert mean_dr == pytest.approx(rewards.mean(axis=0))


def test_draws_that_depend_on_the_prompt_mislead_the_plain_mean_alone() -> None:
    log = logged(20_000)
    found = by_name(estimate_values(log, constant(log)))
    assert found["b"].observed > 0.65
    for name in ("a", "b"):
        for estimate in (found[name].ips, found[name].snips, found[name].doubly_robust):
            assert abs(estimate.value - 0.55) < 4 * estimate.standard_error < 0.05


def test_errors_are_of_the_size_that_logs_differ_by() -> None:
    found = [
        by_name(estimate_values(log, constant(log)))["b"]
        for log in (logged(seed=seed) for seed in range(300))
    ]
    for name in ("ips", "snips", "doubly_robust"):
        values = [getattr(value, name).value for value in found]
        errors = [getattr(value, name).standard_error for value in found]
        assert np.mean(errors) == pytest.approx(np.std(values), rel=0.1)


def test_an_arm_that_always_answers_is_worth_its_mean() -> None:
    log = read_log(["only"] * 40, [1.0] * 40, [1.0, 0.0, 0.0, 0.0] * 10, [""] * 40)
    (only,) = estimate_values(log, constant(log)).arms
    assert only.ips.value == only.snips.value == only.observed == 0.25
    assert only.effective_sample_size == 40


def test_interactions_of_one_subject_count_once() -> None:
    """Each repeated four times under one cluster says no more than each alone."""
    alone = logged(200)
    apart = [str(number) for number in range(200)]
    names = [alone.names[arm] for arm in alone.arms]
    once = by_name(estimate_values(alone, constant(alone)))["b"]
    fourfold = read_log(
        np.repeat(names, 4).tolist(),
        np.repeat(alone.probabilities, 4).tolist(),
        np.repeat(alone.rewards, 4).tolist(),
        np.repeat(apart, 4).tolist(),
    )
    four = by_name(estimate_values(fourfold, constant(fourfold)))["b"]
    assert four.num_interactions == 4 * once.num_interactions
    assert four.effective_sample_size == pytest.approx(once.effective_sample_size)
    for name in ("ips", "snips", "doubly_robust"):
        assert getattr(four, name).standard_error == pytest.approx(
            getattr(once, name).standard_error
        )


def test_a_few_large_weights_are_as_many_degrees_of_freedom() -> None:
    """Ten answers of weight 10 are all of the error; the others are as they were predicted."""
    log = read_log(
        ["a"] * 540 + ["b"] * 460,
        [0.5] * 540 + [0.1] * 10 + [0.5] * 450,
        [0.5] * 540 + [1.0, 0.0] * 5 + [0.5] * 450,
        [""] * 1_000,
    )
    estimate = by_name(estimate_values(log, constant(log)))["b"].doubly_robust
    assert estimate.value == pytest.approx(0.5)
    assert estimate.standard_error == pytest.approx(np.sqrt(10 * 5**2) / 1_000, rel=1e-3)
    students_t_of_nine = 2.26216
    half_width = students_t_of_nine * estimate.standard_error
    assert estimate.ci_high - estimate.value == pytest.approx(half_width, rel=1e-4)
    assert estimate.value - estimate.ci_low == pytest.approx(half_width, rel=1e-4)


def test_few_successes_leave_the_exact_interval() -> None:
    """Six of six: the one-sided bound at 0.025 is its sixth root."""
    log = read_log(["a", "b"] * 6, [0.5] * 12, [1.0, 0.0] * 6, [""] * 12)
    found = by_name(estimate_values(log, np.asarray([[1.0, 0.0]] * 12)))
    bound = 0.025 ** (1 / 6)
    assert found["a"].doubly_robust.ci_low == pytest.approx(bound)
    assert found["a"].snips.ci_low == pytest.approx(bound)
    assert found["b"].snips.ci_high == pytest.approx(1 - bound)
    assert found["a"].doubly_robust.ci_high == 1.0


def test_effective_sample_size_falls_with_unequal_weights() -> None:
    members = np.arange(4)
    assert effective_sample_size(np.asarray([2.0, 2.0, 0.0, 2.0]), members) == 3
    assert effective_sample_size(np.asarray([1.0, 1.0, 0.0, 10.0]), members) == pytest.approx(
        144 / 102
    )


def test_linearised_snips_has_the_mean_of_snips() -> None:
    log = logged()
    terms = snips_terms(log.weights, log.rewards)
    expected = (log.weights * log.rewards[:, None]).sum(axis=0) / log.weights.sum(axis=0)
    assert terms.mean(axis=0) == pytest.approx(expected)


BAD_LOGS = [
    ((["a", "b"], [0.5, None], [1, 0], ["", ""]), "None for number 2"),
    ((["a", "b"], [0.0, 0.5], [1, 0], ["", ""]), r"0\.0 for number 1"),
    ((["a", "b"], [float("nan"), 0.5], [1, 0], ["", ""]), "nan for number 1"),
    ((["a", "b"], [1.5, 0.5], [1, 0], ["", ""]), r"1\.5 for number 1"),
    ((["a", "b"], [0.5, 0.5], [1, -1], ["", ""]), r"-1\.0 for number 2"),
    ((["a", "b"], [0.5, 0.5], [1, 0], ["one", "one"]), "two independent interactions"),
    ((["a"], [0.5, 0.5], [1, 0], ["", ""]), "got 1, 2, 2 and 2"),
    (([], [], [], []), "got 0, 0, 0 and 0"),
]


@pytest.mark.parametrize(("columns", "message"), BAD_LOGS)
def test_logs_that_cannot_be_weighed_are_refused(columns: tuple[list, ...], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        read_log(*columns)


def test_an_arm_drawn_once_is_refused() -> None:
    log = read_log(["a", "a", "a", "b"], [0.7, 0.7, 0.7, 0.3], [1, 0, 1, 1], [""] * 4)
    with pytest.raises(EvaluationError, match="two independent draws of 'b'"):
        estimate_values(log, constant(log))


def test_policies_that_served_one_after_the_other_are_refused() -> None:
    """Each with probability 1, but the other could not have answered."""
    log = read_log(["old"] * 50 + ["new"] * 50, [1.0] * 100, [1, 0] * 50, [""] * 100)
    with pytest.raises(EvaluationError, match=r"got 0\.5 .*could not have drawn"):
        estimate_values(log, constant(log))


def test_probabilities_of_other_draws_are_refused() -> None:
    log = logged(2_000)
    swapped = log._replace(probabilities=1 - log.probabilities)
    with pytest.raises(EvaluationError, match="with mean 1"):
        estimate_values(swapped, constant(log))


def test_predictions_of_another_log_are_refused() -> None:
    log = logged(40)
    with pytest.raises(EvaluationError, match=r"shape \(40, 2\)"):
        estimate_values(log, np.zeros((39, 2)))


def test_no_prediction_has_seen_its_own_reward() -> None:
    clusters = [f"q-{number // 2}" for number in range(400)]
    log = logged(clusters=clusters)
    features = np.random.default_rng(1).random((400, 3))
    before = cross_fitted(log, features)
    for row in (0, 7, 133):
        rewards = log.rewards.copy()
        rewards[row] = 1 - rewards[row]
        after = cross_fitted(log._replace(rewards=rewards), features)
        of_its_cluster = log.members == log.members[row]
        assert (after[of_its_cluster] == before[of_its_cluster]).all()
        assert (after != before).any()


def test_a_model_that_explains_rewards_makes_dr_sharper_than_ips() -> None:
    draw = np.random.default_rng(3)
    signal = draw.random(3_000)
    is_b = draw.random(3_000) < 0.3
    log = read_log(
        np.where(is_b, "b", "a").tolist(),
        np.where(is_b, 0.3, 0.7).tolist(),
        np.where(is_b, signal, 1 - signal).tolist(),
        [""] * 3_000,
    )
    found = by_name(estimate_values(log, cross_fitted(log, signal[:, None])))
    of_the_prompts_alone = signal.std() / np.sqrt(3_000)
    for value in found.values():
        assert value.doubly_robust.standard_error == pytest.approx(of_the_prompts_alone, rel=0.02)
        assert value.ips.standard_error > 1.5 * of_the_prompts_alone
        assert value.doubly_robust.ci_low < 0.5 < value.doubly_robust.ci_high


def test_an_arm_never_drawn_outside_a_fold_is_predicted_the_mean() -> None:
    log = read_log(["a"] * 9 + ["b"], [0.9] * 9 + [0.1], [0.25] * 10, [""] * 10)
    predicted = cross_fitted(log, np.arange(10.0)[:, None])
    assert predicted == pytest.approx(np.full((10, 2), 0.25))


def test_features_are_length_sentences_and_numbers() -> None:
    short, long, empty = prompt_features(["Is 1,200.5 > 3? Yes.", "v1.2.3 " * 9, ""])
    assert short.tolist() == pytest.approx([np.log1p(20), 2, 2, np.log1p(1_200.5)])
    assert long[2] == 18
    assert empty.tolist() == [0, 0, 0, 0]
    assert np.isfinite(prompt_features(["9" * 500])).all()
