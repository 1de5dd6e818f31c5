"""A model of the reward from simple features of the prompt, for the doubly robust estimator.

Ridge regression for each arm, cross-fitted: the clusters are dealt into folds, and what a fold gets
is predicted by models fitted on the others (Chernozhukov et al. 2018, "Double/debiased machine
learning", Econometrics Journal 21:C1-C68, definition 3.1). It need not be right: what it explains
makes the estimate less noisy, and what it gets wrong the weights mend.
"""

import re
from collections.abc import Sequence

import numpy as np

from evaluator.off_policy import BanditLog
from evaluator.statistics import Floats

NUM_FOLDS = 5
_NUMBER = re.compile(r"[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?")
_SENTENCE_END = re.compile(r"[.!?](?:\s|$)")
_LARGEST = 1e12


def prompt_features(prompts: Sequence[str]) -> Floats:
    """Log length, sentences, numbers and log of the largest number of each prompt: (n, 4)."""
    return np.asarray([_features(prompt) for prompt in prompts], dtype=float).reshape(-1, 4)


def cross_fitted(log: BanditLog, features: Floats) -> Floats:
    """Predicted reward of every arm for every interaction, in [0, 1]: (n, K) from (n, d).

    The folds are the same for the same log. An arm that was not drawn outside of a fold is
    predicted to get what all arms got there on average.
    """
    from sklearn.linear_model import Ridge

    spread = features.std(axis=0)
    scaled = (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    num_clusters = int(log.members.max()) + 1
    num_folds = min(NUM_FOLDS, num_clusters)
    folds = (np.random.default_rng(0).permutation(num_clusters) % num_folds)[log.members]
    predictions = np.empty((len(log.arms), len(log.names)))
    for fold in range(num_folds):
        inside = folds == fold
        for number in range(len(log.names)):
            seen = ~inside & (log.arms == number)
            if not seen.any():
                predictions[inside, number] = log.rewards[~inside].mean()
                continue
            model = Ridge(alpha=1.0).fit(scaled[seen], log.rewards[seen])
            predictions[inside, number] = model.predict(scaled[inside])
    return np.clip(predictions, 0.0, 1.0)


def _features(prompt: str) -> tuple[float, float, float, float]:
    numbers = [float(digits.replace(",", "")) for digits in _NUMBER.findall(prompt)]
    largest = min(max(numbers, default=0.0), _LARGEST)
    sentences = len(_SENTENCE_END.findall(prompt))
    return float(np.log1p(len(prompt))), sentences, len(numbers), float(np.log1p(largest))
