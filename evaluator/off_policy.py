"""Off-policy evaluation: what would each policy be worth, had it answered everything?

A log says for each interaction which policy (arm) was drawn, with what probability, and the reward
of its answer; what the others would have got is not known. With n interactions, A the arm drawn
with probability p, r its reward, and q(x, a) a model of the reward:

- direct method: mean of q(x, a); as good as the model.
- inverse propensity scoring, IPS: mean of w r with w = 1{A = a}/p (Horvitz & Thompson 1952);
  unbiased, and noisy where p is small.
- self-normalised, SNIPS: sum of w r over sum of w (Swaminathan & Joachims 2015, "The
  Self-Normalized Estimator for Counterfactual Learning", NeurIPS, equation 7); bounded, and the
  right choice where nothing is known of the prompts.
- doubly robust, DR: mean of q(x, a) + w (r - q(x, a)) (Dudík, Langford & Li 2011, arXiv 1103.4601,
  equation 2); unbiased even where the model is wrong, and the less noisy the better it is. q must
  be cross-fitted (``reward_model.py``): no prediction by a model that saw its reward.

Intervals are normal with a cluster-robust error, on the terms of the mean, for SNIPS on the
linearised ones, w (r - v) over mean w. A few large weights make most of the error, so Student's t
has the degrees of freedom of as many equal terms (Satterthwaite 1946, Biometrics Bulletin
2:110-114): (sum of s²)² / sum of s⁴, with s the residuals summed by cluster. Coverage is asymptotic
all the same. Empirical
Bernstein bounds (Maurer & Pontil 2009, arXiv 0907.3740) hold for every n, but carry a term of
7 ln(2/δ) max w / 3n, at 95 % and weights of up to 25 in 1,300 interactions 0.16 to either side; and
interactions that share a subject are not independent as they ask. Where the normal approximation is
known to fail, with fewer than five effective successes or failures, an interval reaches as far as
the exact binomial one (Clopper & Pearson 1934) on the effective sample size does.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from evaluator.statistics import Floats, Ints, cluster_numbers, cluster_robust_error
from tacit.contracts import ArmValue, ValueEstimate, ValueReport
from tacit.errors import EvaluationError

CONFIDENCE = 0.95
MIN_EVENTS = 5
"""Effective successes, and failures, from which on the normal approximation is trusted."""
MAX_WEIGHT_ERRORS = 5.0
"""Weights have mean 1 if the probabilities are right; further off, in standard errors, they are
not, or not every interaction could have drawn the arm."""
_MEND = "Log the probability with which the policy that answered was drawn, for every interaction."


class BanditLog(NamedTuple):
    """n interactions of K arms; built by :func:`read_log`."""

    names: tuple[str, ...]
    """Of the arms, sorted; K entries."""
    arms: Ints
    """Number of the arm drawn, (n,)."""
    probabilities: Floats
    """With which it was drawn, in (0, 1], (n,)."""
    rewards: Floats
    """In [0, 1], (n,)."""
    members: Ints
    """Cluster of each interaction, from 0 to G-1, (n,); draws within one may depend on another."""

    @property
    def weights(self) -> Floats:
        """1{A = a}/p, (n, K)."""
        drawn: NDArray[np.bool_] = self.arms[:, None] == np.arange(len(self.names))
        return drawn / self.probabilities[:, None]


def read_log(
    arms: Sequence[str],
    probabilities: Sequence[float | None],
    rewards: Sequence[float],
    clusters: Sequence[str],
) -> BanditLog:
    """A log from one entry an interaction; an empty cluster means it stands alone.

    Raises EvaluationError for unequal lengths, fewer than two clusters, a probability that is
    missing or outside of (0, 1], or a reward outside of [0, 1].
    """
    if not len(arms) == len(probabilities) == len(rewards) == len(clusters) or not len(arms):
        lengths = f"{len(arms)}, {len(probabilities)}, {len(rewards)} and {len(clusters)}"
        raise EvaluationError(
            "as many arms as probabilities, rewards and clusters, one at least", got=lengths
        )
    drawn = np.asarray([np.nan if p is None else p for p in probabilities], dtype=float)
    if len(bad := np.flatnonzero(~((drawn > 0) & (drawn <= 1)))):
        raise EvaluationError(
            "a probability in (0, 1] for every interaction",
            got=f"{probabilities[bad[0]]} for number {bad[0] + 1}, and {len(bad) - 1} more",
            mend=_MEND,
        )
    got = np.asarray(rewards, dtype=float)
    if len(bad := np.flatnonzero(~((got >= 0) & (got <= 1)))):
        raise EvaluationError("rewards in [0, 1]", got=f"{got[bad[0]]} for number {bad[0] + 1}")
    members = cluster_numbers(clusters)
    if members.max() == 0:
        raise EvaluationError("two independent interactions at least", got="one")
    names, numbers = np.unique(np.asarray(arms, dtype=str), return_inverse=True)
    return BanditLog(tuple(names.tolist()), numbers.astype(np.intp), drawn, got, members)


def estimate_values(
    log: BanditLog, predictions: Floats, *, confidence: float = CONFIDENCE
) -> ValueReport:
    """All estimates of each arm; ``predictions`` are cross-fitted rewards, (n, K).

    Raises EvaluationError where the log cannot tell: an arm with a single independent draw, or
    weights whose mean is not 1, since then some interactions could not have drawn the arm or the
    probabilities are not those of the draws.
    """
    shape = (len(log.arms), len(log.names))
    if predictions.shape != shape:
        raise EvaluationError(f"predictions of shape {shape}", got=str(predictions.shape))
    weights = log.weights
    arms = [
        _arm_value(log, number, weights[:, number], predictions[:, number], confidence)
        for number in range(len(log.names))
    ]
    return ValueReport(
        num_interactions=len(log.arms),
        num_clusters=int(log.members.max()) + 1,
        confidence=confidence,
        arms=tuple(arms),
    )


def ips_terms(weights: Floats, rewards: Floats) -> Floats:
    """What IPS is the mean of; weights (n,) or (n, K), as the result."""
    return weights * _beside(weights, rewards)


def snips_terms(weights: Floats, rewards: Floats) -> Floats:
    """What SNIPS is the mean of when linearised: v + w (r - v) / mean w; shapes as IPS."""
    rewards = _beside(weights, rewards)
    mean_weight = weights.mean(axis=0)
    value = (weights * rewards).mean(axis=0) / mean_weight
    terms: Floats = value + weights * (rewards - value) / mean_weight
    return terms


def doubly_robust_terms(weights: Floats, rewards: Floats, predictions: Floats) -> Floats:
    """What DR is the mean of; predictions have the shape of weights, (n,) or (n, K)."""
    return predictions + weights * (_beside(weights, rewards) - predictions)


def effective_sample_size(weights: Floats, members: Ints) -> float:
    """Kish's (sum w)² / sum of w², with weights (n,) added up by cluster first."""
    sums = np.bincount(members, weights=weights)
    return float(sums.sum() ** 2 / (sums**2).sum())


def _beside(weights: Floats, rewards: Floats) -> Floats:
    return rewards if weights.ndim == 1 else rewards[:, None]


def _arm_value(
    log: BanditLog, number: int, weights: Floats, predictions: Floats, confidence: float
) -> ArmValue:
    name = log.names[number]
    drawn = log.arms == number
    num_draws = len(np.unique(log.members[drawn]))
    if num_draws < 2:
        raise EvaluationError(f"two independent draws of {name!r} at least", got=str(num_draws))
    _check_overlap(name, weights, log.members)
    size = effective_sample_size(weights, log.members)
    tail = (1 - confidence) / 2
    snips = snips_terms(weights, log.rewards)
    slack = _exact_slack(float(snips.mean()), size, tail)

    def estimate(terms: Floats) -> ValueEstimate:
        value = float(terms.mean())
        error = cluster_robust_error(terms, log.members)
        half_width = error * _quantile(terms, log.members, 1 - tail)
        down, up = (max(half_width, exact) for exact in slack)
        return ValueEstimate(
            value=value,
            ci_low=max(value - down, min(value, 0.0)),
            ci_high=min(value + up, max(value, 1.0)),
            standard_error=error,
        )

    return ArmValue(
        arm=name,
        num_interactions=int(drawn.sum()),
        effective_sample_size=size,
        observed=float(log.rewards[drawn].mean()),
        direct=float(predictions.mean()),
        ips=estimate(ips_terms(weights, log.rewards)),
        snips=estimate(snips),
        doubly_robust=estimate(doubly_robust_terms(weights, log.rewards, predictions)),
    )


def _quantile(terms: Floats, members: Ints, level: float) -> float:
    """Of Student's t, with the degrees of freedom of the squared error of the mean of ``terms``."""
    squares = np.bincount(members, weights=terms - terms.mean()) ** 2
    fourths = float((squares**2).sum())
    freedom = 1.0 if fourths == 0 else max(float(squares.sum()) ** 2 / fourths - 1, 1.0)
    return float(special.stdtrit(freedom, level))


def _check_overlap(name: str, weights: Floats, members: Ints) -> None:
    mean, error = float(weights.mean()), cluster_robust_error(weights, members)
    # Rounding leaves an arm that always answers with a mean of nearly 1 and nearly no error.
    if abs(mean - 1) > MAX_WEIGHT_ERRORS * error + 1e-9:
        raise EvaluationError(
            f"weights of {name!r} with mean 1",
            got=f"{mean:.3g} with a standard error of {error:.2g}",
            mend="Some of these interactions could not have drawn it, or the probabilities are "
            "not those it was drawn with.",
        )


def _exact_slack(rate: float, num_draws: float, tail: float) -> tuple[float, float]:
    """How far the exact interval reaches below and above; 0 where the normal one will do."""
    hits, misses = rate * num_draws, (1 - rate) * num_draws
    if min(hits, misses) >= MIN_EVENTS:
        return 0.0, 0.0
    low = float(special.betaincinv(hits, misses + 1, tail)) if hits > 0 else 0.0
    high = float(special.betaincinv(hits + 1, misses, 1 - tail)) if misses > 0 else 1.0
    return rate - low, high - rate
