"""Inference: greedy generation and scores of continuations, over token ids, in batches.

The way is chosen once a model: taken apart (body.py) where that gives the model's own logits, else
by ``transformers`` (whole.py). Results are the same but for rounding.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from tacit.inference.body import Body, take_apart
from tacit.inference.choices import Scored, score
from tacit.inference.greedy import IsStop, Tokens, decode
from tacit.inference.whole import decode_whole, is_plainly_greedy, score_whole


class Inference:
    """Generation and scoring with one model."""

    def __init__(self, model: Any, *, pad_id: int, eos_ids: Sequence[int]) -> None:
        self._model = model
        self._pad_id = pad_id
        self._eos_ids = tuple(eos_ids)

    @cached_property
    def body(self) -> Body | None:
        """The parts of the model, or None if it is run as a whole."""
        return take_apart(self._model)

    def generate(
        self,
        prompts: Sequence[list[int]],
        *,
        max_new_tokens: int,
        batch_size: int,
        is_stop: IsStop | None = None,
        with_logprobs: bool = True,
    ) -> list[Tokens]:
        """What follows each prompt greedily, in the order of ``prompts``.

        Without ``with_logprobs`` they mean nothing, which is faster. Raises ValueError for an
        empty prompt.
        """
        _refuse_empty(prompts)
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        results: dict[int, Tokens] = {}
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            batch = [prompts[i] for i in indices]
            stop = _stop_of(is_stop, indices)
            found = self._decode(batch, max_new_tokens, stop, with_logprobs)
            results.update(zip(indices, found, strict=True))
        return [results[i] for i in range(len(prompts))]

    def _decode(
        self,
        batch: list[list[int]],
        max_new_tokens: int,
        is_stop: IsStop | None,
        with_logprobs: bool,
    ) -> list[Tokens]:
        if self.body is not None and is_plainly_greedy(self._model.generation_config):
            return decode(
                self.body,
                batch,
                max_new_tokens=max_new_tokens,
                eos_ids=self._eos_ids,
                is_stop=is_stop,
                with_logprobs=with_logprobs,
            )
        return decode_whole(
            self._model,
            batch,
            max_new_tokens=max_new_tokens,
            pad_id=self._pad_id,
            eos_ids=self._eos_ids,
            is_stop=is_stop,
        )

    def score(
        self,
        prompts: Sequence[list[int]],
        continuations: Sequence[Sequence[tuple[int, ...]]],
        *,
        batch_size: int,
    ) -> list[list[Scored]]:
        """Scores of the continuations of each prompt, in their order.

        Raises ValueError for an empty prompt or continuation.
        """
        _refuse_empty(prompts)
        _refuse_empty([ids for offered in continuations for ids in offered])
        if self.body is not None:
            order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
            results: dict[int, list[Scored]] = {}
            for start in range(0, len(order), batch_size):
                indices = order[start : start + batch_size]
                found = score(
                    self.body, [prompts[i] for i in indices], [continuations[i] for i in indices]
                )
                results.update(zip(indices, found, strict=True))
            return [results[i] for i in range(len(prompts))]
        pairs = [
            (prompt, ids)
            for prompt, offered in zip(prompts, continuations, strict=True)
            for ids in offered
        ]
        scored = iter(score_whole(self._model, pairs, pad_id=self._pad_id, batch_size=batch_size))
        return [[next(scored) for _ in offered] for offered in continuations]


def _stop_of(is_stop: IsStop | None, indices: Sequence[int]) -> IsStop | None:
    """``is_stop`` for a batch whose rows are the prompts at ``indices``."""
    if is_stop is None:
        return None
    return lambda row, ids: is_stop(indices[row], ids)


def _refuse_empty(sequences: Sequence[Sequence[int]]) -> None:
    if not all(sequences):
        raise ValueError("expected one token at least; got a sequence of none")
