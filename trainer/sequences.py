"""Prompts with completions as padded tensors, and sums over the completions.

Input: token ids. Output: Sequences, which know for each completion token where in the batch it is
predicted and to which completion it belongs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

TokenIds = tuple[int, ...]

WIDTH_MULTIPLE = 8
"""Of few widths there are few shapes: oneDNN compiles a kernel for each, and matrices of bfloat16
want multiples of 8 on GPUs."""


def padded_width(num_tokens: int) -> int:
    """Tokens of a row, padding included, of which ``num_tokens`` are taken."""
    return -(-num_tokens // WIDTH_MULTIPLE) * WIDTH_MULTIPLE


@dataclass(frozen=True)
class Sequences:
    """N sequences in R rows, padded on the right to T tokens; M are completion tokens.

    A row is a prompt with one completion or several, which do not see each other.
    """

    input_ids: Tensor
    """[R, T]"""
    attention_mask: Tensor
    """[R, T]"""
    branches: Tensor | None
    """[R, T] 0 for the prompt, 1 and up for its completions, -1 for padding; None where every row
    has one completion."""
    position_ids: Tensor
    """[R, T] place of each token in its own sequence."""
    rows: Tensor
    """[M] row of each completion token."""
    columns: Tensor
    """[M] position whose logits predict the token."""
    owners: Tensor
    """[M] sequence of the token."""
    offsets: Tensor
    """[M] place of the token in its completion."""
    targets: Tensor
    """[M] id of the token."""
    lengths: Tensor
    """[N] completion tokens of each sequence."""

    def visible(self) -> Tensor:
        """[R, 1, T, T] bool, whether the token at the third place sees the one at the last."""
        if self.branches is None:
            raise ValueError("expected rows with branches; got one completion in each row")
        keys, queries = self.branches[:, None, :], self.branches[:, :, None]
        return ((keys == 0) | (keys == queries)).tril()[:, None]

    def per_sequence(self, values: Tensor) -> Tensor:
        """Sums [N] of a value per completion token [M]."""
        # A padded matrix and not index_add: that one sums in any order on a GPU.
        padded = values.new_zeros(len(self.lengths), int(self.offsets.max()) + 1)
        padded = padded.index_put((self.owners, self.offsets), values)
        return padded.sum(-1)

    def per_sequence_of(self, tokens: Tensor, values: Tensor) -> Tensor:
        """Sums [N] of a value per completion token [S] of those at ``tokens`` [S]."""
        spread = values.new_zeros(len(self.owners)).index_put((tokens,), values)
        return self.per_sequence(spread)


def collate(texts: Sequence[tuple[TokenIds, ...]], *, pad_id: int) -> Sequences:
    """Pad rows, each a prompt and its completions, on the right; none may be empty."""
    width = padded_width(max(sum(map(len, text)) for text in texts))
    ids: list[list[int]] = []
    branches: list[list[int]] = []
    positions: list[list[int]] = []
    rows: list[int] = []
    columns: list[int] = []
    owners: list[int] = []
    offsets: list[int] = []
    lengths: list[int] = []
    for row, (prompt, *completions) in enumerate(texts):
        tokens, branch, position = list(prompt), [0] * len(prompt), list(range(len(prompt)))
        for number, completion in enumerate(completions, start=1):
            size = len(completion)
            rows += [row] * size
            # The first token is predicted where the prompt ends, whatever lies between.
            columns += [len(prompt) - 1, *range(len(tokens), len(tokens) + size - 1)]
            owners += [len(lengths)] * size
            offsets += range(size)
            lengths.append(size)
            tokens += completion
            branch += [number] * size
            position += range(len(prompt), len(prompt) + size)
        padding = width - len(tokens)
        ids.append(tokens + [pad_id] * padding)
        branches.append(branch + [-1] * padding)
        positions.append(position + [0] * padding)
    forks = torch.tensor(branches)
    return Sequences(
        input_ids=torch.tensor(ids),
        attention_mask=(forks >= 0).long(),
        branches=forks if len(lengths) > len(texts) else None,
        position_ids=torch.tensor(positions),
        rows=torch.tensor(rows),
        columns=torch.tensor(columns),
        owners=torch.tensor(owners),
        offsets=torch.tensor(offsets),
        targets=torch.tensor([t for _, *parts in texts for part in parts for t in part]),
        lengths=torch.tensor(lengths),
    )
