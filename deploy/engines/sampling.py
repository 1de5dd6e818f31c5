"""Choosing the next token of every row of a batch at once, each by its own sampling parameters."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from deploy.engines.base import TopToken
from deploy.engines.row import Row


class Choice(NamedTuple):
    """The next token of a row."""

    token_id: int
    logprob: float
    """Natural-log probability under the distribution it was drawn from."""
    top: tuple[TopToken, ...]
    """The likeliest tokens of that distribution, as many as were asked for."""


def choose(scores: torch.Tensor, rows: Sequence[Row]) -> list[Choice]:
    """A token for each of ``rows`` from ``scores`` of shape (rows, vocabulary), in float32.

    Each row draws with its own random numbers, so its answer does not depend on its neighbours.
    """
    logprobs = scores.log_softmax(-1)
    chosen = scores.max(-1).indices  # as argmax, in a third of its time on the CPU
    drawn = [index for index, row in enumerate(rows) if row.request.sampling.temperature > 0]
    if drawn:
        where = torch.tensor(drawn, device=scores.device)
        tempered = _tempered(scores[where], [rows[index] for index in drawn])
        logprobs[where] = tempered
        chosen[where] = _draw(tempered, [rows[index].uniform() for index in drawn])
    taken = logprobs.gather(-1, chosen[:, None]).squeeze(-1).tolist()
    tops = _tops(logprobs, rows)
    return [Choice(*each) for each in zip(chosen.tolist(), taken, tops, strict=True)]


def tempered_logprobs(
    scores: torch.Tensor, *, temperature: float | torch.Tensor, top_p: float | torch.Tensor
) -> torch.Tensor:
    """Logprobs of the distribution that is sampled from, of the shape of ``scores``.

    Scores (…, vocabulary) over temperature, cut to the smallest set of tokens that holds ``top_p``
    of the probability (nucleus sampling, Holtzman et al. 2020, arXiv 1904.09751), and
    renormalized. ``temperature`` and ``top_p`` are numbers or broadcast against ``scores``.
    """
    # Subtracting the largest first keeps a tiny temperature from overflowing.
    largest = scores.max(-1, keepdim=True).values
    tempered = ((scores - largest) / temperature).log_softmax(-1)
    if bool((torch.as_tensor(top_p) >= 1).all()):
        return tempered
    ordered, order = tempered.exp().sort(-1, descending=True)
    outside = (ordered.cumsum(-1) - ordered >= top_p) & (torch.as_tensor(top_p) < 1).to(
        scores.device
    )
    cut = torch.zeros_like(outside).scatter(-1, order, outside)
    return tempered.masked_fill(cut, -torch.inf).log_softmax(-1)


def _tempered(scores: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
    sampling = [row.request.sampling for row in rows]
    temperature = scores.new_tensor([[s.temperature] for s in sampling])
    top_p = (
        1.0
        if all(s.top_p >= 1 for s in sampling)
        else scores.new_tensor([[s.top_p] for s in sampling])
    )
    return tempered_logprobs(scores, temperature=temperature, top_p=top_p)


def _draw(logprobs: torch.Tensor, uniforms: Sequence[float]) -> torch.Tensor:
    """The token at which the cumulative probability first exceeds each row's uniform number."""
    cumulative = logprobs.double().exp().cumsum(-1)
    # Just below 1, so that rounding never points behind the last token that is possible.
    at = cumulative.new_tensor(uniforms)[:, None] * (1 - 1e-12) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, at, right=True).squeeze(-1)


def _tops(logprobs: torch.Tensor, rows: Sequence[Row]) -> list[tuple[TopToken, ...]]:
    most = max(row.request.top_logprobs for row in rows)
    if most == 0:
        return [()] * len(rows)
    found = logprobs.topk(min(most, logprobs.shape[-1]), dim=-1)
    return [
        tuple(map(TopToken, ids, values))[: row.request.top_logprobs]
        for row, ids, values in zip(
            rows, found.indices.tolist(), found.values.tolist(), strict=True
        )
    ]
