"""Keys and values of a batch of sequences, in buffers that grow ahead of need.

``transformers.DynamicCache`` copies everything it holds for every token; here a token is written in
place, and rows that have ended can be dropped.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

GROWTH = 1.5
"""A buffer that is full is replaced by one so many times its size."""


class BufferedLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer, [B, heads, length, head size] views of longer buffers."""

    def __init__(self, *, capacity: int) -> None:
        super().__init__()
        self._capacity = capacity
        self._length = 0

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append [B, heads, n, head size] states; returns all there are."""
        end = self._length + key_states.shape[-2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._capacity = max(self._capacity, end)
            self._buffers = tuple(self._empty(x) for x in (key_states, value_states))
        elif end > self._capacity:
            self._grow(end)
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, self._length : end] = states
        self._length = end
        self._view()
        return self.keys, self.values

    def seed(self, keys: Tensor, values: Tensor, num_rows: int) -> None:
        """Begin with the states [1, heads, n, head size] of a prefix, the same for all rows."""
        self.update(keys.expand(num_rows, -1, -1, -1), values.expand(num_rows, -1, -1, -1))

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but those at the indices ``rows`` [B']."""
        held = (buffer[:, :, : self._length].index_select(0, rows) for buffer in self._buffers)
        self._replace(held)

    def _grow(self, end: int) -> None:
        self._capacity = max(end, int(self._capacity * GROWTH))
        self._replace(buffer[:, :, : self._length] for buffer in self._buffers)

    def _replace(self, held: Any) -> None:
        buffers = []
        for states in held:
            buffer = self._empty(states)
            buffer[:, :, : self._length] = states
            buffers.append(buffer)
        self._buffers = tuple(buffers)
        self._view()

    def _empty(self, like: Tensor) -> Tensor:
        num_rows, num_heads, _, head_size = like.shape
        return like.new_empty((num_rows, num_heads, self._capacity, head_size))

    def _view(self) -> None:
        self.keys, self.values = (buffer[:, :, : self._length] for buffer in self._buffers)


def is_plain(config: Any) -> bool:
    """Whether every layer of the model keeps all keys and values: no window, no recurrence."""
    layers = DynamicCache(config=config).layers
    return bool(layers) and all(type(layer) is DynamicLayer for layer in layers)


def new_cache(config: Any, *, capacity: int) -> Cache:
    """An empty cache with room for ``capacity`` tokens a row, to begin with."""
    num_layers = len(DynamicCache(config=config).layers)
    return Cache(layers=[BufferedLayer(capacity=capacity) for _ in range(num_layers)])


def seed(cache: Cache, prefix: Cache, num_rows: int) -> None:
    """Put the states of a one-row cache at the beginning of every row of ``cache``."""
    for layer, source in zip(cache.layers, prefix.layers, strict=True):
        layer.seed(source.keys, source.values, num_rows)


def keep(cache: Cache, rows: Tensor) -> None:
    """Drop all rows of ``cache`` but those at the indices ``rows`` [B']."""
    for layer in cache.layers:
        layer.keep(rows)


def float_mask(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """The additive form of a mask in which True means seen."""
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)
