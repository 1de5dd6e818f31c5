"""Keys and values of a running batch, aligned in time so that rows may join and leave at any step.

All rows write their next token into one column, the *cursor*; a row's prompt stands in the columns
just left of the cursor at which it joined. So a step writes one slice and reads one slice of each
layer, with no copy and no index per row, and what a row may not see is masked from its left. Room
grows and the live columns move to the front of fresh tensors as the cursor runs out of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

_MIN_SLOTS = 4
_MIN_WIDTH = 128


class Window(NamedTuple):
    """What one forward pass touches: it writes ``[start, stop)`` and sees ``[first, stop)``."""

    rows: slice
    first: int
    start: int
    stop: int


_NOTHING = Window(slice(0, 0), 0, 0, 0)


@dataclass
class _Room:
    """Size of every layer's tensors, and the window of the pass in progress."""

    slots: int = 0
    width: int = 0
    window: Window = _NOTHING


class BatchCache(Cache):  # type: ignore[misc]
    """A ``transformers`` cache whose rows are requests; empty until :meth:`admit`."""

    def __init__(self, num_layers: int) -> None:
        self._room = _Room()
        self.starts: list[int] = []
        """Column of each row's first token."""
        self.cursor = 0
        """Column that the next token of every row goes to."""
        self.layout = 0
        """Another number whenever rows or columns came, went or moved."""
        super().__init__(layers=[_BatchLayer(self._room) for _ in range(num_layers)])

    @property
    def width(self) -> int:
        """Columns there is room for."""
        return self._room.width

    @property
    def first(self) -> int:
        """Leftmost column that any row still needs."""
        return min(self.starts, default=self.cursor)

    def admit(self, lengths: Sequence[int]) -> Window:
        """Add rows whose prompts have ``lengths`` tokens, padded on the left to the longest.

        Returns the window of the pass that reads the prompts.
        """
        longest, num_old = max(lengths), len(self.starts)
        if num_old == 0:
            self.cursor = longest
        live, num_rows = self.cursor - self.first, num_old + len(lengths)
        short_of_room = num_rows > self._room.slots or self.cursor >= self._room.width
        if short_of_room or self.cursor < longest:
            self._move(num_rows=num_rows, cursor=max(live, longest))
        self.starts += [self.cursor - length for length in lengths]
        self.layout += 1
        start = self.cursor - longest
        return self._look(Window(slice(num_old, num_rows), start, start, self.cursor))

    def advance(self) -> Window:
        """The window of a pass that gives every row one more token; moves the cursor behind it."""
        if self.cursor >= self._room.width:
            self._move(num_rows=len(self.starts), cursor=self.cursor - self.first)
        self.cursor += 1
        rows = slice(0, len(self.starts))
        return self._look(Window(rows, self.first, self.cursor - 1, self.cursor))

    def drop(self, row: int) -> None:
        """Forget ``row``; the last row takes its number."""
        last = len(self.starts) - 1
        if row != last:
            self.starts[row] = self.starts[last]
            for layer in self.layers:
                layer.copy_row(last, row, slice(self.starts[last], self.cursor))
        self.starts.pop()
        self.layout += 1

    def _look(self, window: Window) -> Window:
        self._room.window = window
        return window

    def _move(self, *, num_rows: int, cursor: int) -> None:
        """Make room for ``num_rows`` rows, and for columns beyond the new ``cursor``."""
        old = slice(self.first, self.cursor)
        self._room.slots = max(self._room.slots, _power_of_two(num_rows, least=_MIN_SLOTS))
        self._room.width = _power_of_two(2 * cursor, least=_MIN_WIDTH)
        for layer in self.layers:
            layer.move(len(self.starts), old, end=cursor)
        shift = cursor - self.cursor
        self.starts = [start + shift for start in self.starts]
        self.cursor = cursor
        self.layout += 1


class _BatchLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer, each (slots, heads, width, head size)."""

    is_sliding = False

    def __init__(self, room: _Room) -> None:
        super().__init__()
        self._room = room

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Take room for states like these."""
        self.keys = self._fresh(key_states)
        self.values = self._fresh(value_states)
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the states of the pass; what it may look at, (rows, heads, columns, head size)."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        rows, first, start, stop = self._room.window
        self.keys[rows, :, start:stop] = key_states
        self.values[rows, :, start:stop] = value_states
        return self.keys[rows, :, first:stop], self.values[rows, :, first:stop]

    def copy_row(self, source: int, target: int, columns: slice) -> None:
        """Overwrite row ``target`` by ``source``."""
        for states in (self.keys, self.values):
            states[target, :, columns] = states[source, :, columns]

    def move(self, num_rows: int, columns: slice, *, end: int) -> None:
        """Move ``columns`` of the first rows into fresh tensors, so that they stop at ``end``."""
        if not self.is_initialized:
            return
        to = slice(end - (columns.stop - columns.start), end)
        old_keys, old_values = self.keys, self.values
        self.lazy_initialization(old_keys, old_values)
        self.keys[:num_rows, :, to] = old_keys[:num_rows, :, columns]
        self.values[:num_rows, :, to] = old_values[:num_rows, :, columns]

    def get_seq_length(self) -> int:
        """Columns that the pass sees and does not write."""
        return self._room.window.start - self._room.window.first

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns that the pass sees, from 0 on."""
        return self._room.window.stop - self._room.window.first, 0

    def get_max_length(self) -> int:
        """No limit."""
        return -1

    def _fresh(self, like: torch.Tensor) -> torch.Tensor:
        # Zeros: what is masked still takes part in the arithmetic, where NaN would spread.
        _, heads, _, head_size = like.shape
        return like.new_zeros(self._room.slots, heads, self._room.width, head_size)


def _power_of_two(number: int, *, least: int) -> int:
    return max(least, 1 << (number - 1).bit_length())
