"""Examples packed into padded tensors: what a worker takes through the model at once.

Input: the examples of a micro-batch. Output: a MicroBatch, which says of every term of the
objective which sequences and which of their completion tokens it is about.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from trainer.examples import JUDGED, Example, ExampleKind
from trainer.sequences import Sequences, TokenIds, collate

_Tensors = TypeVar("_Tensors", bound="Sequences | Sampled | MicroBatch")


@dataclass(frozen=True)
class Sampled:
    """How the tokens of ``MicroBatch.sampled`` were drawn when they were served."""

    logprobs: Tensor
    """[B] log-probability of each completion under the policy that sampled it."""
    temperatures: Tensor
    """[S] of each token."""
    truncated: Tensor
    """[U] which of the S tokens were drawn from a nucleus."""
    top_p: Tensor
    """[U] share of the probability in that nucleus."""


@dataclass(frozen=True)
class MicroBatch:
    """Indices are of the N sequences or, where they are called tokens, of their M tokens."""

    sequences: Sequences
    mismatched: Sequences | None
    """Prompts of ``judged`` with another example's completion; None where there is no other."""
    taught: Sequences | None
    """``criticised`` as the teacher reads them: the same tokens after another prompt."""
    chosen: Tensor
    """[P] chosen completions of pairs."""
    rejected: Tensor
    """[P] rejected completions of pairs."""
    pair_weights: Tensor
    """[P]"""
    likely: Tensor
    """[Q] completions whose likelihood is raised: the chosen ones, with and without a pair."""
    likely_weights: Tensor
    """[Q]"""
    judged: Tensor
    """[K] completions with an outcome or a rating, sampled nobody knows how."""
    desirable: Tensor
    """[K] bool"""
    judged_weights: Tensor
    """[K]"""
    sampled: Tensor
    """[B] completions with an outcome or a rating whose behaviour is known."""
    positive: Tensor
    """[B] bool"""
    sampled_weights: Tensor
    """[B]"""
    sampled_tokens: Tensor
    """[S] their tokens."""
    behaviour: Sampled
    criticised: Tensor
    """[C] completions with a critique."""
    criticised_weights: Tensor
    """[C]"""
    criticised_tokens: Tensor
    """[D] their tokens, in the order of ``taught``."""
    replayed: Tensor
    """[R] replay completions."""
    replay_weights: Tensor
    """[R]"""
    anchored: Tensor
    """[A] those that are held to what the parent says."""
    anchored_weights: Tensor
    """[A]"""
    anchored_tokens: Tensor
    """[E] their tokens."""


class _Selection(NamedTuple):
    """Examples that feed one term, with the number of each one's first sequence."""

    examples: list[Example]
    rows: Tensor
    weights: Tensor
    tokens: Tensor


def pack(
    piece: Sequence[tuple[Example, TokenIds | None]], *, pad_id: int, share_prompts: bool = False
) -> MicroBatch:
    """Pad ``piece``: examples, each with its mismatched completion or None.

    With ``share_prompts`` both completions of a pair stand behind one prompt.
    """
    examples = [example for example, _ in piece]
    first_rows, texts = _lay_out(examples, share_prompts=share_prompts)
    sequences = collate(texts, pad_id=pad_id)

    def select(feeds: Callable[[Example], bool]) -> _Selection:
        found = [i for i, example in enumerate(examples) if feeds(example)]
        rows = _long(first_rows[i] for i in found)
        return _Selection(
            examples=[examples[i] for i in found],
            rows=rows,
            weights=_float(examples[i].weight for i in found),
            tokens=torch.isin(sequences.owners, rows).nonzero().squeeze(-1),
        )

    pairs = select(lambda e: e.kind is ExampleKind.PAIR)
    likely = select(lambda e: e.kind in (ExampleKind.PAIR, ExampleKind.CHOSEN))
    judged = select(lambda e: e.kind in JUDGED and e.behaviour is None)
    sampled = select(lambda e: e.kind in JUDGED and e.behaviour is not None)
    criticised = select(lambda e: e.kind is ExampleKind.CRITICISED)
    replayed = select(lambda e: e.kind is ExampleKind.REPLAY)
    anchored = select(lambda e: e.kind is ExampleKind.REPLAY and e.anchored)
    others = [(example.prompt, other) for example, other in piece if other is not None]
    taught = [(example.teacher_prompt, example.completion) for example in criticised.examples]
    return MicroBatch(
        sequences=sequences,
        mismatched=collate(others, pad_id=pad_id) if others else None,
        taught=collate(taught, pad_id=pad_id) if taught else None,
        chosen=pairs.rows,
        rejected=pairs.rows + 1,
        pair_weights=pairs.weights,
        likely=likely.rows,
        likely_weights=likely.weights,
        judged=judged.rows,
        desirable=_are_desirable(judged.examples),
        judged_weights=judged.weights,
        sampled=sampled.rows,
        positive=_are_desirable(sampled.examples),
        sampled_weights=sampled.weights,
        sampled_tokens=sampled.tokens,
        behaviour=_behaviour(sampled.examples),
        criticised=criticised.rows,
        criticised_weights=criticised.weights,
        criticised_tokens=criticised.tokens,
        replayed=replayed.rows,
        replay_weights=replayed.weights,
        anchored=anchored.rows,
        anchored_weights=anchored.weights,
        anchored_tokens=anchored.tokens,
    )


def _lay_out(
    examples: Sequence[Example], *, share_prompts: bool
) -> tuple[list[int], list[tuple[TokenIds, ...]]]:
    """The number of each example's first sequence, and all rows."""
    firsts: list[int] = []
    texts: list[tuple[TokenIds, ...]] = []
    num_sequences = 0
    for example in examples:
        firsts.append(num_sequences)
        said = (example.completion, *filter(None, (example.rejected,)))
        if share_prompts:
            texts.append((example.prompt, *said))
        else:
            texts += [(example.prompt, completion) for completion in said]
        num_sequences += len(said)
    return firsts, texts


def _behaviour(examples: Sequence[Example]) -> Sampled:
    known = [example.behaviour for example in examples if example.behaviour is not None]
    tokens = [behaviour for behaviour in known for _ in behaviour.logprobs]
    truncated = [i for i, behaviour in enumerate(tokens) if behaviour.top_p < 1]
    return Sampled(
        logprobs=_float(math.fsum(behaviour.logprobs) for behaviour in known),
        temperatures=_float(behaviour.temperature for behaviour in tokens),
        truncated=_long(truncated),
        top_p=_float(tokens[i].top_p for i in truncated),
    )


def _are_desirable(examples: Sequence[Example]) -> Tensor:
    return torch.tensor([e.kind is ExampleKind.DESIRABLE for e in examples], dtype=torch.bool)


def _long(values: Iterable[int]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.long)


def _float(values: Iterable[float]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float32)


def to_device(batch: _Tensors, device: Any) -> _Tensors:
    """A copy with every tensor on ``device``."""
    moved: dict[str, Any] = {}
    for field in fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, Tensor):
            moved[field.name] = value.to(device)
        elif isinstance(value, Sequences | Sampled):
            moved[field.name] = to_device(value, device)
    return replace(batch, **moved)
