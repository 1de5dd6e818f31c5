"""The benchmark's logged bandit: its draws are what it says, and its figures are counted right."""

import numpy as np
import pytest

from benchmarks.off_policy import (
    DATA,
    MIN_PROBABILITY,
    MODELS,
    SHARES,
    draw_arms,
    generate,
    judge,
    load,
    logging_probabilities,
    measure,
    simulate,
)
from evaluator.reward_model import prompt_features
from tacit.contracts import ArmValue, ValueEstimate


def test_draws_follow_unequal_probabilities_that_depend_on_the_question() -> None:
    probabilities = logging_probabilities(prompt_features(generate(300).prompts))
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(300))
    assert probabilities.min() >= MIN_PROBABILITY
    assert probabilities.mean(axis=0) == pytest.approx(SHARES, abs=0.08)
    assert (probabilities.std(axis=0) > 0.02).all()
    generator = np.random.default_rng(0)
    drawn = np.asarray([draw_arms(probabilities, generator) for _ in range(3_000)])
    for arm in range(len(MODELS)):
        assert (drawn == arm).mean(axis=0) == pytest.approx(probabilities[:, arm], abs=0.05)


def test_intervals_hold_the_truth_and_dr_beats_ips() -> None:
    figures = measure(generate(400), num_draws=40)
    for name in ("ips", "snips", "doubly_robust"):
        assert 0.9 <= float(figures[f"coverage_{name}"]) <= 0.995
    assert float(figures["dr_over_ips"]) < 0.95
    assert float(figures["rmse_observed"]) > float(figures["rmse_doubly_robust"])
    assert float(figures["bias_observed"]) > 3 * float(figures["bias_doubly_robust"])


@pytest.mark.skipif(load(DATA) is None, reason=f"no gsm8k_outcomes in {DATA.parent}")
def test_one_real_log_tells_the_models_apart() -> None:
    outcomes = load(DATA)
    assert outcomes is not None
    assert outcomes.correct.shape == (1_319, 4)
    ((*values,),) = simulate(outcomes, num_draws=1, replace=True, seed=0)
    truth = outcomes.correct.mean(axis=0)
    for value, rate in zip(values, truth, strict=True):
        assert value.doubly_robust.value == pytest.approx(rate, abs=0.1)
    assert values[3].doubly_robust.ci_low > values[0].doubly_robust.ci_high


def test_figures_are_counted_over_models_and_draws() -> None:
    def value(at: float) -> ArmValue:
        estimate = ValueEstimate(value=at, ci_low=at - 0.1, ci_high=at + 0.1, standard_error=0.05)
        same = dict.fromkeys(("ips", "snips", "doubly_robust"), estimate)
        return ArmValue(
            arm="a", num_interactions=9, effective_sample_size=9, observed=at, direct=at, **same
        )

    coverage, errors = judge(
        [(value(0.5), value(0.5)), (value(0.5), value(0.9))], np.asarray([0.5, 0.5])
    )
    assert coverage["coverage_ips"] == 0.75
    assert coverage["coverage_ips_worst_model"] == 0.5
    assert errors["rmse_ips"] == pytest.approx(0.2)
    assert errors["bias_ips"] == pytest.approx(0.2)
    assert errors["width_ips"] == pytest.approx(0.2)
