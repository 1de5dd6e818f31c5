"""Examples sorted into steps and packed into padded tensors.

A step is one optimizer step over all workers. Which examples share a step is drawn once, from the
seed; epochs only change the order of the steps. So the reference needs one pass, and the mismatched
completions that KTO compares with are always those of the same step.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from trainer.examples import Example, ExampleKind

BUCKET_STEPS = 4
"""Steps whose examples are sorted by length together: little padding, still well mixed."""

_KTO = (ExampleKind.DESIRABLE, ExampleKind.UNDESIRABLE)
_Tensors = TypeVar("_Tensors", "Sequences", "MicroBatch")


@dataclass(frozen=True)
class Sequences:
    """N sequences padded on the right to T tokens, M of which are completion tokens."""

    input_ids: Tensor
    """[N, T]"""
    attention_mask: Tensor
    """[N, T]"""
    rows: Tensor
    """[M] sequence of each completion token."""
    columns: Tensor
    """[M] position whose logits predict the token."""
    offsets: Tensor
    """[M] place of the token in its completion."""
    targets: Tensor
    """[M] id of the token."""
    lengths: Tensor
    """[N] completion tokens of each sequence."""

    def per_sequence(self, values: Tensor) -> Tensor:
        """Sums [N] of a value per completion token [M]."""
        # A padded matrix and not index_add: that one sums in any order on a GPU.
        padded = values.new_zeros(len(self.lengths), int(self.offsets.max()) + 1)
        padded = padded.index_put((self.rows, self.offsets), values)
        return padded.sum(-1)


@dataclass(frozen=True)
class MicroBatch:
    """What one worker takes through the model at once. Indices are rows of ``sequences``."""

    sequences: Sequences
    mismatched: Sequences | None
    """Prompts of the KTO examples with another example's completion; None without KTO."""
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
    """[K] completions with an outcome or a rating."""
    desirable: Tensor
    """[K] bool"""
    judged_weights: Tensor
    """[K]"""
    replayed: Tensor
    """[R] replay completions."""
    replay_weights: Tensor
    """[R]"""
    replay_tokens: Tensor
    """[S] indices into the M completion tokens that belong to replay."""


def plan_steps(examples: Sequence[Example], *, batch_size: int, seed: int) -> list[list[Example]]:
    """Every example in exactly one step of at most ``batch_size``, alike lengths together."""
    shuffled = list(examples)
    random.Random(seed).shuffle(shuffled)
    bucket = batch_size * BUCKET_STEPS
    steps = []
    for start in range(0, len(shuffled), bucket):
        alike = sorted(shuffled[start : start + bucket], key=lambda e: e.num_tokens)
        steps += [alike[i : i + batch_size] for i in range(0, len(alike), batch_size)]
    return steps


def schedule(num_steps: int, *, num_epochs: int, seed: int) -> Iterator[int]:
    """Indices of steps, each once an epoch, in another order every epoch."""
    generator = random.Random(seed + 1)
    for _ in range(num_epochs):
        order = list(range(num_steps))
        generator.shuffle(order)
        yield from order


def micro_batches(
    step: Sequence[Example],
    *,
    rank: int,
    world_size: int,
    max_tokens: int,
    max_length: int,
    pad_id: int,
) -> list[MicroBatch]:
    """The part of ``step`` that falls to ``rank``, in pieces of at most ``max_tokens`` padded."""
    partner = _mismatched(step, max_length)
    own = [(example, partner.get(i)) for i, example in enumerate(step)][rank::world_size]
    pieces: list[list[tuple[Example, tuple[int, ...] | None]]] = []
    width = 0
    for example, other in own:
        width = max(width, example.num_tokens)
        if not pieces or 2 * width * (len(pieces[-1]) + 1) > max_tokens:
            pieces.append([])
            width = example.num_tokens
        pieces[-1].append((example, other))
    return [_pack(piece, pad_id) for piece in pieces]


def _mismatched(step: Sequence[Example], max_length: int) -> dict[int, tuple[int, ...]]:
    """For each KTO example the completion of the one before it, the first taking the last's.

    A lone KTO example has no mismatched completion and is left out.
    """
    indices = [i for i, example in enumerate(step) if example.kind in _KTO]
    if len(indices) < 2:
        return {}
    return {
        index: step[indices[place - 1]].completion[: max_length - len(step[index].prompt)]
        for place, index in enumerate(indices)
    }


def _pack(piece: Sequence[tuple[Example, tuple[int, ...] | None]], pad_id: int) -> MicroBatch:
    examples = [example for example, _ in piece]
    first_row: list[int] = []
    pairs: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    for example in examples:
        first_row.append(len(pairs))
        pairs.append((example.prompt, example.completion))
        if example.kind is ExampleKind.PAIR:
            pairs.append((example.prompt, example.rejected))

    def select(*kinds: ExampleKind) -> tuple[Tensor, Tensor]:
        found = [i for i, example in enumerate(examples) if example.kind in kinds]
        rows = torch.tensor([first_row[i] for i in found], dtype=torch.long)
        return rows, torch.tensor([examples[i].weight for i in found], dtype=torch.float32)

    sequences = collate(pairs, pad_id=pad_id)
    chosen, pair_weights = select(ExampleKind.PAIR)
    likely, likely_weights = select(ExampleKind.PAIR, ExampleKind.CHOSEN)
    judged, judged_weights = select(*_KTO)
    replayed, replay_weights = select(ExampleKind.REPLAY)
    others = [(example.prompt, other) for example, other in piece if other is not None]
    signs = [e.kind is ExampleKind.DESIRABLE for e in examples if e.kind in _KTO]
    return MicroBatch(
        sequences=sequences,
        mismatched=collate(others, pad_id=pad_id) if others else None,
        chosen=chosen,
        rejected=chosen + 1,
        pair_weights=pair_weights,
        likely=likely,
        likely_weights=likely_weights,
        judged=judged,
        desirable=torch.tensor(signs, dtype=torch.bool),
        judged_weights=judged_weights,
        replayed=replayed,
        replay_weights=replay_weights,
        replay_tokens=torch.isin(sequences.rows, replayed).nonzero().squeeze(-1),
    )


def collate(pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], *, pad_id: int) -> Sequences:
    """Pad (prompt, completion) pairs on the right; both must hold a token at least."""
    width = max(len(prompt) + len(completion) for prompt, completion in pairs)
    ids: list[list[int]] = []
    mask: list[list[int]] = []
    rows: list[int] = []
    columns: list[int] = []
    offsets: list[int] = []
    targets: list[int] = []
    for row, (prompt, completion) in enumerate(pairs):
        padding = width - len(prompt) - len(completion)
        ids.append([*prompt, *completion, *[pad_id] * padding])
        mask.append([1] * (width - padding) + [0] * padding)
        rows += [row] * len(completion)
        columns += range(len(prompt) - 1, len(prompt) + len(completion) - 1)
        offsets += range(len(completion))
        targets += completion
    return Sequences(
        input_ids=torch.tensor(ids),
        attention_mask=torch.tensor(mask),
        rows=torch.tensor(rows),
        columns=torch.tensor(columns),
        offsets=torch.tensor(offsets),
        targets=torch.tensor(targets),
        lengths=torch.tensor([len(completion) for _, completion in pairs]),
    )


def to_device(batch: _Tensors, device: Any) -> _Tensors:
    """A copy with every tensor on ``device``."""
    moved: dict[str, Any] = {}
    for field in fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, Tensor):
            moved[field.name] = value.to(device)
        elif isinstance(value, Sequences):
            moved[field.name] = to_device(value, device)
    return replace(batch, **moved)
