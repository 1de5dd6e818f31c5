"""Examples sorted into steps, and each worker's part of a step into micro-batches.

A step is one optimizer step over all workers. Which examples share a step is drawn once, from the
seed; epochs only change the order of the steps. So the reference needs one pass, and the mismatched
completions that KTO compares with are always those of the same step.
"""

import hashlib
import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from trainer.examples import JUDGED, Example
from trainer.packing import MicroBatch, pack
from trainer.sequences import padded_width

BUCKET_STEPS = 4
"""Steps whose examples are sorted by length together: little padding, still well mixed."""

_Said = tuple[tuple[int, ...], tuple[int, ...]]
"""Prompt and completion."""


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
    share_prompts: bool = False,
) -> list[MicroBatch]:
    """The part of ``step`` that falls to ``rank``, in pieces of at most ``max_tokens`` padded."""
    partner = mismatched_completions(step, max_length)
    pieces: list[list[tuple[Example, tuple[int, ...] | None]]] = []
    size = _Size()
    for index in _share(step, rank=rank, world_size=world_size):
        size = size.with_one_more(step[index])
        if not pieces or size.num_tokens > max_tokens:
            pieces.append([])
            size = _Size().with_one_more(step[index])
        pieces[-1].append((step[index], partner.get(index)))
    return [pack(piece, pad_id=pad_id, share_prompts=share_prompts) for piece in pieces]


def _share(step: Sequence[Example], *, rank: int, world_size: int) -> list[int]:
    """Indices of this worker's examples: as many of each kind as other workers', as long as theirs.

    What a worker computes hangs on both, and it has to wait for the others.
    """
    by_kind = sorted(range(len(step)), key=lambda index: step[index].kind)
    return sorted(by_kind[rank::world_size])


class _Size(NamedTuple):
    """Of a micro-batch whose rows are padded to the longest, and of what its teacher reads."""

    rows: int = 0
    width: int = 0
    taught_rows: int = 0
    taught_width: int = 0

    @property
    def num_tokens(self) -> int:
        """Of the larger one; the two pass one after the other."""
        return max(self.rows * self.width, self.taught_rows * self.taught_width)

    def with_one_more(self, example: Example) -> "_Size":
        """An example has two rows at most."""
        return _Size(
            rows=self.rows + 2,
            width=max(self.width, padded_width(example.num_tokens)),
            taught_rows=self.taught_rows + bool(example.teacher_prompt),
            taught_width=max(self.taught_width, padded_width(example.num_taught_tokens)),
        )


def mismatched_completions(step: Sequence[Example], max_length: int) -> dict[int, tuple[int, ...]]:
    """For each example KTO learns from, a completion that was said to another one.

    Answers stand in an order that depends on themselves alone, each takes the completion of the one
    before it, and the first the last's. So neither the order of events nor an answer that was
    judged twice changes what is compared. A lone answer has no other and is left out.
    """
    said = {
        index: (example.prompt, example.completion)
        for index, example in enumerate(step)
        if example.kind in JUDGED and example.behaviour is None
    }
    ordered = sorted(set(said.values()), key=_scattered)
    if len(ordered) < 2:
        return {}
    before = {own: ordered[place - 1] for place, own in enumerate(ordered)}
    return {index: before[own][1][: max_length - len(own[0])] for index, own in said.items()}


def _scattered(said: _Said) -> bytes:
    # By a hash, or the answers to one prompt would stand side by side and not be mismatched.
    return hashlib.blake2b(repr(said).encode()).digest()
