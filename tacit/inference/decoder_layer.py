"""One layer of a Llama-shaped decoder, as few operations over the model's own weights."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Layer:
    """One decoder layer over rows [N, H], N being all tokens of the pass."""

    def __init__(self, layer: Any) -> None:
        attention, feed_forward = layer.self_attn, layer.mlp
        projections = [attention.q_proj, attention.k_proj, attention.v_proj]
        self._head_size: int = attention.head_dim
        self._num_queries, self._num_keys, num_values = (
            each.out_features // self._head_size for each in projections
        )
        if num_values != self._num_keys:
            raise ValueError("expected as many heads of values as of keys")
        self._scaling: float = attention.scaling
        self._head_norm = _head_norm(attention, self._num_queries, self._num_keys)
        self._before_attention = Norm(layer.input_layernorm)
        self._before_feed_forward = Norm(layer.post_attention_layernorm)
        self._qkv = Product(projections)
        self._out = Product([attention.o_proj])
        self._gate_up = Product([feed_forward.gate_proj, feed_forward.up_proj])
        self._down = Product([feed_forward.down_proj])
        self._activation = feed_forward.act_fn.forward

    def attend(
        self,
        hidden: Tensor,
        shape: tuple[int, int],
        angles: tuple[Tensor, Tensor],
        mask: Tensor,
        layer: Any,
    ) -> Tensor:
        """``hidden`` [N, H] after attention, for B rows of S tokens, ``shape`` being (B, S).

        Keys and values go into the ``layer`` of the cache.
        """
        num_queries, num_keys, size = self._num_queries, self._num_keys, self._head_size
        heads = self._qkv(self._before_attention(hidden)).view(shape[0] * shape[1], -1, size)
        turned = heads[:, : num_queries + num_keys]
        if self._head_norm is not None:
            turned = self._head_norm(turned)
        turned = _turn(turned, *angles).view(*shape, -1, size).transpose(1, 2)
        values = heads[:, num_queries + num_keys :].view(*shape, -1, size).transpose(1, 2)
        queries = turned[:, :num_queries]
        keys, values = layer.update(turned[:, num_queries:], values)
        if shape[1] == 1:
            # Queries of one token see the same keys: a group of them is a sequence of queries.
            queries = queries.reshape(shape[0], num_keys, -1, size)
        attended = functional.scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=mask,
            scale=self._scaling,
            enable_gqa=queries.shape[1] != num_keys,
        )
        if shape[1] > 1:
            attended = attended.transpose(1, 2)
        return self._out.added_to(hidden, attended.reshape(shape[0] * shape[1], -1))

    def feed_forward(self, hidden: Tensor) -> Tensor:
        """``hidden`` [N, H] after the feed-forward."""
        gate, up = self._gate_up(self._before_feed_forward(hidden)).chunk(2, -1)
        return self._down.added_to(hidden, self._activation(gate) * up)


class Product:
    """Linear layers of the same input as one matrix product.

    A product with few rows is faster on weights stored as [in, out]. They are stored so anew, and
    the layers become views of that, so that nothing is in memory twice.
    """

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        if any(type(layer) is not nn.Linear for layer in layers):
            raise TypeError("expected plain linear layers")
        self._weight = torch.cat([layer.weight.detach().t() for layer in layers], 1).contiguous()
        biases = [layer.bias for layer in layers]
        self._bias = None
        if any(bias is not None for bias in biases):
            self._bias = torch.cat([bias.detach() for bias in biases])
        sizes = [layer.out_features for layer in layers]
        for layer, part in zip(layers, torch.split(self._weight, sizes, 1), strict=True):
            layer.weight.data = part.t()

    def __call__(self, rows: Tensor) -> Tensor:
        if self._bias is None:
            return rows.mm(self._weight)
        return torch.addmm(self._bias, rows, self._weight)

    def added_to(self, rest: Tensor, rows: Tensor) -> Tensor:
        """``rest`` and the product."""
        added = torch.addmm(rest, rows, self._weight)
        return added if self._bias is None else added + self._bias


class Norm:
    """Root mean square normalization (Zhang & Sennrich 2019, arXiv 1910.07467)."""

    def __init__(self, norm: Any, weight: Tensor | None = None) -> None:
        self._weight: Tensor = norm.weight.detach() if weight is None else weight
        self._eps: float = norm.variance_epsilon
        self._size = self._weight.shape[-1:]
        self._mean: Tensor | None = None
        if self._weight.dtype == torch.float32:
            self._mean = self._weight.new_full((self._size[0], 1), 1 / self._size[0])
            self._least = self._weight.new_tensor(self._eps)

    def __call__(self, rows: Tensor) -> Tensor:
        if self._mean is None:
            return functional.rms_norm(rows, self._size, None, self._eps) * self._weight
        # The mean as a product: few rows are bound by the number of operations.
        squares = rows.square().view(-1, self._size[0])
        scales = torch.addmm(self._least, squares, self._mean).rsqrt_()
        return rows * scales.view(*rows.shape[:-1], 1) * self._weight


def _head_norm(attention: Any, num_queries: int, num_keys: int) -> Norm | None:
    """Normalizes heads of queries and keys together, as Qwen3 does; None where none is asked."""
    if not hasattr(attention, "q_norm"):
        return None
    weights = [attention.q_norm.weight] * num_queries + [attention.k_norm.weight] * num_keys
    return Norm(attention.q_norm, torch.stack(weights).detach())


def _turn(heads: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Heads [N, G, D] turned by their positions' angles."""
    swapped = heads.roll(heads.shape[-1] // 2, -1)
    return torch.addcmul(heads * cosines, swapped, sines)
