"""Do off-policy estimates find out what each policy is worth, on real outcomes of four models?

    python -m benchmarks.off_policy [--data ../shared/data/gsm8k_outcomes] [--draws 1000] [--quick]

Every question of OpenAI's grade-school-math has the outcomes of four models. The logging policy
draws one model for each question, with known, unequal probabilities that depend on the question's
length and numbers, and only that model's outcome is kept. From many such logs the success rate of
each model is estimated and compared with its true rate over all questions.

``coverage_*`` is the share of 95 % intervals that hold the true rate, over all models and draws, of
logs whose questions are drawn with replacement: a sample of the traffic, which is what intervals
speak of. ``coverage_*_same_questions`` has every question once in each log: then only the draw of
the model varies, and intervals are wider than need be. ``rmse_*`` are over all models and draws;
``bias_*`` is the largest mean error of a model. ``observed`` is the plain mean of what was drawn.
Without the data a generated log of the same shape stands in, and ``data`` says so.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.results import DETAILS, report
from evaluator.off_policy import estimate_values, read_log
from evaluator.reward_model import cross_fitted, prompt_features
from evaluator.statistics import Floats, Ints
from tacit.contracts import ArmValue, ValueEstimate

DATA = Path(__file__).parents[2] / "shared" / "data" / "gsm8k_outcomes"
FILE = "example_model_solutions.jsonl"
MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
SHARES = (0.4, 0.3, 0.2, 0.1)
"""Of the traffic, about, by model."""
TILT = 0.6
"""How much a standard deviation of a feature moves the log odds of a model."""
MIN_PROBABILITY = 0.04
INTERVALS = ("ips", "snips", "doubly_robust")


class Outcomes(NamedTuple):
    """All outcomes of all models."""

    prompts: list[str]
    """N questions."""
    correct: Floats
    """1 if right, (N, K)."""


def load(folder: Path) -> Outcomes | None:
    """The log in ``folder``; None where there is none."""
    path = folder / FILE
    if not path.exists():
        return None
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    correct = [[float(row[model]["is_correct"]) for model in MODELS] for row in rows]
    return Outcomes([row["question"] for row in rows], np.asarray(correct))


def generate(num_questions: int = 1_319, *, seed: int = 0) -> Outcomes:
    """Questions of 1 to 8 numbers; the more there are, the fewer of them the models get right."""
    draw = np.random.default_rng(seed)
    counts = draw.integers(1, 9, num_questions)
    prompts = [
        " ".join(f"Ann buys {draw.integers(2, 99)} pears." for _ in range(count))
        for count in counts
    ]
    rates = np.clip(np.asarray((0.3, 0.45, 0.4, 0.6)) - 0.06 * (counts[:, None] - 4.5), 0, 1)
    return Outcomes(prompts, (draw.random(rates.shape) < rates).astype(float))


def logging_probabilities(features: Floats) -> Floats:
    """With which each model is drawn for each question, (N, K): long questions go to large models.

    A softmax tilted by length and count of numbers, mixed so that none is below
    ``MIN_PROBABILITY``.
    """
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    hardness = TILT * (scaled[:, 0] + scaled[:, 2]) / 2
    logits = np.log(SHARES) + hardness[:, None] * np.linspace(-1.5, 1.5, len(SHARES))
    odds = np.exp(logits)
    shares: Floats = odds / odds.sum(axis=1, keepdims=True)
    return MIN_PROBABILITY + (1 - MIN_PROBABILITY * len(SHARES)) * shares


def draw_arms(probabilities: Floats, generator: np.random.Generator) -> Ints:
    """One arm a row, by the probabilities of the row: (n,) from (n, K)."""
    below = generator.random(len(probabilities))[:, None] < probabilities.cumsum(axis=1)
    return below.argmax(axis=1)


def simulate(
    outcomes: Outcomes, *, num_draws: int, replace: bool, seed: int
) -> list[tuple[ArmValue, ...]]:
    """What is estimated of each model from each of ``num_draws`` logs."""
    features = prompt_features(outcomes.prompts)
    probabilities = logging_probabilities(features)
    generator = np.random.default_rng(seed)
    num_questions = len(outcomes.prompts)
    estimated = []
    for _ in range(num_draws):
        asked = np.arange(num_questions)
        if replace:
            asked = generator.integers(0, num_questions, num_questions)
        arms = draw_arms(probabilities[asked], generator)
        log = read_log(
            [MODELS[arm] for arm in arms],
            probabilities[asked, arms].tolist(),
            outcomes.correct[asked, arms].tolist(),
            [""] * num_questions,
        )
        report_ = estimate_values(log, cross_fitted(log, features[asked]))
        by_name = {value.arm: value for value in report_.arms}
        estimated.append(tuple(by_name[model] for model in MODELS))
    return estimated


def judge(
    estimated: Sequence[Sequence[ArmValue]], truth: Floats
) -> tuple[dict[str, float], dict[str, float]]:
    """Coverage by estimator; RMSE, largest bias and mean width by estimator."""
    coverage, errors = {}, {}
    for name in ("observed", "direct", *INTERVALS):
        found = [[getattr(value, name) for value in values] for values in estimated]
        values = np.asarray([[_value(one) for one in row] for row in found])
        errors[f"rmse_{name}"] = float(np.sqrt(((values - truth) ** 2).mean()))
        errors[f"bias_{name}"] = float(np.abs(values.mean(axis=0) - truth).max())
        if name not in INTERVALS:
            continue
        low = np.asarray([[one.ci_low for one in row] for row in found])
        high = np.asarray([[one.ci_high for one in row] for row in found])
        held = (low <= truth) & (truth <= high)
        coverage[f"coverage_{name}"] = float(held.mean())
        coverage[f"coverage_{name}_worst_model"] = float(held.mean(axis=0).min())
        errors[f"width_{name}"] = float((high - low).mean())
    return coverage, errors


def _value(estimate: ValueEstimate | float) -> float:
    return estimate if isinstance(estimate, float) else estimate.value


def measure(outcomes: Outcomes, *, num_draws: int) -> dict[str, float | str]:
    """All figures."""
    truth = outcomes.correct.mean(axis=0)
    sampled = simulate(outcomes, num_draws=num_draws, replace=True, seed=1)
    coverage, errors = judge(sampled, truth)
    same, _ = judge(simulate(outcomes, num_draws=num_draws, replace=False, seed=2), truth)
    same = {f"{k}_same_questions": v for k, v in same.items() if not k.endswith("worst_model")}
    rates = {f"true_{model}": float(rate) for model, rate in zip(MODELS, truth, strict=True)}
    return {
        **coverage,
        **same,
        **errors,
        "dr_over_ips": errors["rmse_doubly_robust"] / errors["rmse_ips"],
        "dr_over_snips": errors["rmse_doubly_robust"] / errors["rmse_snips"],
        **rates,
        "num_draws": num_draws,
        "num_questions": len(outcomes.prompts),
    }


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--draws", type=int, default=1_000, help="logs of either kind")
    parser.add_argument("--quick", action="store_true", help="100 logs, nothing kept")
    options = parser.parse_args()
    outcomes = load(options.data)
    started = time.perf_counter()
    figures = measure(outcomes or generate(), num_draws=100 if options.quick else options.draws)
    figures["data"] = "generated" if outcomes is None else "gsm8k_outcomes"
    figures["wall_s"] = time.perf_counter() - started
    if options.quick:
        print(json.dumps(figures))
        return
    (DETAILS / "off_policy.json").write_text(json.dumps(figures, indent=2) + "\n")
    report("off_policy", figures)


if __name__ == "__main__":
    main()
