"""The answers to new prompts in a micro-batch, as opposed to those that are rehearsed.

An example counts with one completion: of a pair the chosen one.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from trainer.packing import MicroBatch

SCATTER = 2_654_435_761
"""2^32 over the golden ratio: multiplicative hashing, Knuth 1973, volume 3, section 6.4."""


class NewAnswers(NamedTuple):
    """X completions of a micro-batch."""

    rows: Tensor
    """[X] of the micro-batch's sequences."""
    weights: Tensor
    """[X]"""


def new_answers(batch: MicroBatch) -> NewAnswers:
    """All that feedback is about."""
    return NewAnswers(
        rows=torch.cat([batch.likely, batch.judged, batch.sampled, batch.criticised]),
        weights=torch.cat(
            [
                batch.likely_weights,
                batch.judged_weights,
                batch.sampled_weights,
                batch.criticised_weights,
            ]
        ),
    )


def probed_tokens(batch: MicroBatch) -> Tensor:
    """[X] one token of each new answer, in the order of ``new_answers``.

    Which one depends on the completion alone, not on what shares the micro-batch with it; over many
    answers all places are drawn alike.
    """
    sequences = batch.sequences
    scattered = sequences.per_sequence(sequences.targets) * SCATTER >> 16
    # Tokens stand in the order of their sequences.
    first = sequences.lengths.cumsum(0) - sequences.lengths
    return (first + scattered % sequences.lengths)[new_answers(batch).rows]
