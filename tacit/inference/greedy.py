"""Greedy decoding of a batch, with rows dropped as they end.

The tokens are those of ``model.generate(do_sample=False)``; what is saved is its work on every
step: masks made anew, caches copied, ended rows computed on, logits of prompts.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tacit.inference import kv
from tacit.inference.body import Body

HEADROOM = 32
"""Tokens beyond the prompt that buffers have room for at first."""
DROP_SHARE = 1 / 8
"""Rows are dropped once so large a share has ended; dropping copies the others."""


class Tokens(NamedTuple):
    """What was generated for one prompt."""

    ids: list[int]
    """The end-of-sequence token included."""
    logprobs: list[float]
    ended: bool
    """By an end of sequence or a stop; else the limit was reached."""


IsStop = Callable[[int, list[int]], bool]
"""Whether the prompt at this index has all it wants, given the ids generated so far."""


@torch.inference_mode()
def decode(
    body: Body,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int,
    eos_ids: Sequence[int],
    is_stop: IsStop | None = None,
    with_logprobs: bool = True,
) -> list[Tokens]:
    """The most probable token, one after another, for every prompt; all in one batch.

    Without ``with_logprobs`` they are all NaN, which saves a pass over the vocabulary a token.
    """
    rows = _Rows(body, prompts, max_new_tokens)
    results = [Tokens([], [], False) for _ in prompts]
    live = list(range(len(prompts)))
    ends = set(eos_ids)
    logits = rows.first()
    for step in range(max_new_tokens):
        best = logits.max(-1)
        tokens = best.indices.tolist()
        logprobs = [math.nan] * len(tokens)
        if with_logprobs:
            logprobs = (best.values - logits.logsumexp(-1)).tolist()
        over = []
        for row, (token, logprob) in enumerate(zip(tokens, logprobs, strict=True)):
            index = live[row]
            result = results[index]
            if result.ended:
                over.append(row)
                continue
            result.ids.append(token)
            result.logprobs.append(logprob)
            if token in ends or (is_stop is not None and is_stop(index, result.ids)):
                results[index] = result._replace(ended=True)
                over.append(row)
        if len(over) == len(live) or step + 1 == max_new_tokens:
            break
        next_ids = best.indices
        if len(over) >= len(live) * DROP_SHARE:
            gone = set(over)
            kept = [row for row in range(len(live)) if row not in gone]
            live = [live[row] for row in kept]
            next_ids = rows.keep(kept, next_ids)
        logits = rows.next(next_ids)
    return results


class _Rows:
    """The rows of a batch: their cache, what each sees, and where it stands."""

    def __init__(self, body: Body, prompts: Sequence[list[int]], max_new_tokens: int) -> None:
        self._body = body
        self._shared, self._prefix = body.beginning(prompts)
        self._rests = [prompt[self._shared :] for prompt in prompts]
        self._width = max(len(rest) for rest in self._rests)
        self._length = self._shared + self._width
        capacity = self._length + min(max_new_tokens, HEADROOM)
        self._cache = kv.new_cache(body.config, capacity=capacity)
        device = body.device
        padding = [self._width - len(rest) for rest in self._rests]
        self._padding = torch.tensor(padding, device=device)
        self._positions = self._length - self._padding
        columns = torch.arange(self._length + max_new_tokens, device=device)
        first = self._shared + self._padding[:, None]
        self._visible = (columns < self._shared) | (columns >= first)  # [B, all tokens ever]

    def first(self) -> Tensor:
        """[B, V] logits of the first new token."""
        device = self._body.device
        padded = [[0] * (self._width - len(rest)) + rest for rest in self._rests]
        ids = torch.tensor(padded, device=device)
        if self._prefix is not None:
            kv.seed(self._cache, self._prefix, len(padded))
        end = self._length
        causal = torch.ones(self._width, end, dtype=torch.bool, device=device).tril(self._shared)
        itself = torch.eye(self._width, dtype=torch.bool, device=device)
        visible = self._visible[:, None, :end] & causal
        visible[:, :, self._shared :] |= itself  # padding has to see something
        places = torch.arange(self._shared, end, device=device) - self._padding[:, None]
        hidden = self._body.hidden(ids, visible, places.clamp(min=0), self._cache)
        return self._body.logits(hidden[:, -1])

    def next(self, ids: Tensor) -> Tensor:
        """[B, V] logits after the tokens ``ids`` [B]."""
        self._length += 1
        visible = self._visible[:, None, : self._length]
        hidden = self._body.hidden(ids[:, None], visible, self._positions[:, None], self._cache)
        self._positions = self._positions + 1
        return self._body.logits(hidden[:, -1])

    def keep(self, rows: list[int], ids: Tensor) -> Tensor:
        """Drop the other rows; returns those of ``ids`` [B] that stay."""
        index = torch.tensor(rows, device=self._body.device)
        kv.keep(self._cache, index)
        self._visible = self._visible.index_select(0, index)
        self._positions = self._positions.index_select(0, index)
        return ids.index_select(0, index)
