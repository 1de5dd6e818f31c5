"""Prompts with completions as padded tensors, and sums over the completions.

Input: token ids. Output: Sequences, which know for each completion token where in the batch it is
predicted and to which completion it belongs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

TokenIds = tuple[int, ...]


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

    def per_sequence_of(self, tokens: Tensor, values: Tensor) -> Tensor:
        """Sums [N] of a value per completion token [S] of those at ``tokens`` [S]."""
        spread = values.new_zeros(len(self.rows)).index_put((tokens,), values)
        return self.per_sequence(spread)


def collate(pairs: Sequence[tuple[TokenIds, TokenIds]], *, pad_id: int) -> Sequences:
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
