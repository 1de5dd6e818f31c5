"""Choosing the next token of every row of a batch, each row by its own sampling parameters.

Plugs into ``transformers``' ``generate``: the processor chooses, notes the choice in the row, and
leaves ``generate`` nothing but that choice. So the forward passes, the cache and the model's own
logits processors are exactly those of ``tacit.policies.Policy.generate``.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import LogitsProcessor, StoppingCriteria

from deploy.engines.row import Row


class RowSampler(LogitsProcessor):  # type: ignore[misc]
    """Draws a token for each row that is not done."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """``scores`` of shape (rows, vocabulary) in; all but the chosen token -inf out."""
        chosen = scores.argmax(-1)
        logprobs = scores.log_softmax(-1).gather(-1, chosen[:, None]).squeeze(-1)
        for index, row in enumerate(self._rows):
            if row.request.sampling.temperature > 0 and not row.done:
                chosen[index], logprobs[index] = _draw(scores[index], row)
        for row, token_id, logprob in zip(
            self._rows, chosen.tolist(), logprobs.tolist(), strict=True
        ):
            if not row.done:
                row.push(token_id, logprob)
        return torch.full_like(scores, -torch.inf).scatter_(-1, chosen[:, None], 0.0)


class RowsDone(StoppingCriteria):  # type: ignore[misc]
    """Tells ``generate`` which rows have all they need."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """One bool per row."""
        return torch.tensor([row.done for row in self._rows], device=input_ids.device)


def _draw(scores: torch.Tensor, row: Row) -> tuple[torch.Tensor, torch.Tensor]:
    sampling = row.request.sampling
    logprobs = tempered_logprobs(scores, temperature=sampling.temperature, top_p=sampling.top_p)
    token_id = torch.multinomial(logprobs.exp(), 1, generator=row.generator).squeeze(0)
    return token_id, logprobs[token_id]


def tempered_logprobs(scores: torch.Tensor, *, temperature: float, top_p: float) -> torch.Tensor:
    """Logprobs of the distribution that is sampled from, shape (vocabulary,) as ``scores``.

    Scores over temperature, cut to the smallest set of tokens that holds ``top_p`` of the
    probability (nucleus sampling, Holtzman et al. 2020, arXiv 1904.09751), and renormalized.
    """
    # Subtracting the largest first keeps a tiny temperature from overflowing.
    tempered = ((scores - scores.max()) / temperature).log_softmax(-1)
    if top_p >= 1:
        return tempered
    ordered, order = tempered.exp().sort(descending=True)
    outside = ordered.cumsum(-1) - ordered >= top_p
    return tempered.index_fill(0, order[outside], -torch.inf).log_softmax(-1)
