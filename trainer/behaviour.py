"""How a completion was sampled, as serving logged it: what off-policy learning needs.

Input: an interaction. Output: its Behaviour, or None where the log cannot be trusted to belong to
the tokens and to a distribution that the trainer can rebuild; such an outcome is learned by KTO.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tacit.contracts import InlineInteraction, SamplingParameters

MIN_TEMPERATURE = 0.1
"""Nearer to greedy than this, rounding in serving decides what its log-probabilities are."""

LOGPROB_RANGE = (-1e4, 1e-3)
"""Lower no model's is that could sample the token; above 0 it may be for want of precision."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """The distribution each token was drawn from, and how likely it was there."""

    logprobs: tuple[float, ...]
    """Natural logs, one a token, after temperature and top-p."""
    temperature: float = 1.0
    top_p: float = 1.0


def sampled_completion(
    tokenizer: Any, interaction: InlineInteraction
) -> tuple[tuple[int, ...], Behaviour] | None:
    """The completion's tokens as they were sampled, with their Behaviour; None if unusable.

    Usable are ids of this vocabulary that read as the completion does, with log-probabilities and
    sampling parameters. A text cut at a stop string reads otherwise than its ids do. Greedy answers
    are logged by the untempered policy, so they count as temperature 1.
    """
    ids, logprobs, sampling = interaction.completion_ids, interaction.logprobs, interaction.sampling
    if not ids or logprobs is None or sampling is None:
        return None
    if 0 < sampling.temperature < MIN_TEMPERATURE or not _possible(logprobs):
        return None
    if not _reads_as(tokenizer, ids, interaction.completion):
        return None
    return tuple(ids), _behaviour(logprobs, sampling)


def _behaviour(logprobs: Sequence[float], sampling: SamplingParameters) -> Behaviour:
    if sampling.temperature == 0:
        return Behaviour(tuple(logprobs))
    return Behaviour(tuple(logprobs), sampling.temperature, sampling.top_p)


def _possible(logprobs: Sequence[float]) -> bool:
    lowest, highest = LOGPROB_RANGE
    return lowest <= min(logprobs) and max(logprobs) <= highest


def _reads_as(tokenizer: Any, ids: Sequence[int], completion: str) -> bool:
    if max(ids) >= len(tokenizer):
        return False
    text: str = tokenizer.decode(list(ids), skip_special_tokens=True)
    return text.strip() == completion.strip()
