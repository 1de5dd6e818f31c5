"""The forward pass of a Llama-shaped decoder, without the interpreter's share of each step.

A small model's step is bound by what Python and ``transformers`` do between the matrix products:
masks made anew, decorators, output classes, one product for each of q, k and v. Here a step is the
arithmetic alone, over the model's own weights: pre-norm attention with rotary positions (Su et al.
2021, arXiv 2104.09864) and grouped queries, then a gated feed-forward (Touvron et al. 2023, arXiv
2302.13971). Llama, Mistral, Qwen2 and Qwen3 have this shape. Whether a model does is found out by
comparing its logits, not by its name.
"""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Cache

from tacit.inference import kv
from tacit.inference.decoder_layer import Layer, Norm, Product

logger = logging.getLogger(__name__)

Masks = Tensor | Mapping[str, Tensor]
"""What is added to attention scores, [B, 1, S, L]; one for each kind of layer if they differ."""

_STATIC_ROPE = {"default", "linear", "llama3", "yarn"}
"""Rotary positions that depend on the position alone, and not on how long the sequence is."""
_NOT_THIS_SHAPE = (AttributeError, TypeError, ValueError, RuntimeError, IndexError, KeyError)


class Decoder:
    """One model's forward pass. The weights are shared with the model, in an order that is faster.

    For inference alone, and for one thread at a time.
    """

    def __init__(self, model: Any) -> None:
        """Raises AttributeError, TypeError or ValueError for a model of another shape."""
        body, config = model.model, model.config
        rope = (config.rope_parameters or {}).get("rope_type")
        if rope not in _STATIC_ROPE:
            raise ValueError(f"expected rotary positions of {_STATIC_ROPE}; got {rope}")
        self._rotary = body.rotary_emb
        self._table = torch.empty(2, 0, 0)
        self._embedding: nn.Embedding = body.embed_tokens
        kinds = getattr(config, "layer_types", None) or [""] * len(body.layers)
        self.kinds: list[str] = list(kinds)
        """Kind of attention of each layer, empty in a model that has but one."""
        self._layers = [Layer(layer) for layer in body.layers]
        self._norm = Norm(body.norm)
        self._head = Product([model.get_output_embeddings()])

    def logits(self, ids: Tensor, positions: Tensor, masks: Masks, cache: Cache) -> Tensor:
        """[B, V] logits after the last of the token ids [B, S] at ``positions`` [B, S].

        Keys and values go into the layers of ``cache``, all of which are there, and are read from
        them, L for each row.
        """
        num_rows, length = ids.shape
        any_mask = masks if isinstance(masks, Tensor) else masks[self.kinds[0]]
        angles = self._angles(positions.reshape(-1), below=any_mask.shape[-1])
        hidden = functional.embedding(ids.reshape(-1), self._embedding.weight)
        shape = (num_rows, length)
        for kind, layer, held in zip(self.kinds, self._layers, cache.layers, strict=True):
            mask = masks if isinstance(masks, Tensor) else masks[kind]
            hidden = layer.attend(hidden, shape, angles, mask, held)
            hidden = layer.feed_forward(hidden)
        if length > 1:
            hidden = hidden.view(num_rows, length, -1)[:, -1]
        return self._head(self._norm(hidden))

    def _angles(self, positions: Tensor, *, below: int) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines [N, 1, D] of ``positions`` [N], all of them under ``below``."""
        if self._table.shape[1] < below:
            self._grow(below)
        cosines, sines = self._table.index_select(1, positions).unsqueeze(2)
        return cosines, sines

    def _grow(self, num_positions: int) -> None:
        weight = self._embedding.weight
        longest = 1 << max(num_positions - 1, 255).bit_length()
        places = torch.arange(longest, device=weight.device)[None]
        cosines, sines = self._rotary(weight[:1], places)
        half = cosines.shape[-1] // 2
        # Half a turn is a swap of the halves and a sign; the sign is put into the table.
        sines = torch.cat((-sines[..., :half], sines[..., half:]), -1)
        self._table = torch.cat((cosines, sines))


def decoder_of(model: Any) -> Decoder | None:
    """The forward pass of ``model``; None if it has another shape or computes something else."""
    try:
        with torch.no_grad():
            decoder = Decoder(model)
            if _agrees(decoder, model):
                return decoder
    except _NOT_THIS_SHAPE as error:
        logger.debug("a forward pass of our own failed", exc_info=error)
    logger.info("%s is run by transformers, which is slower", type(model).__name__)
    return None


def _agrees(decoder: Decoder, model: Any) -> bool:
    """Whether a prompt and two tokens after it get the logits that the model itself gives."""
    weight = model.get_input_embeddings().weight
    device, dtype = weight.device, weight.dtype
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(len(weight), (2, 12), generator=generator).to(device)
    expected = model(input_ids=ids).logits.float()
    cache = kv.new_cache(model.config, capacity=ids.shape[1])
    close, start = 1e-4 if dtype == torch.float32 else 5e-2, 0
    for stop in (10, 11, 12):
        visible = torch.ones(1, 1, stop - start, stop, dtype=torch.bool, device=device).tril(start)
        mask = kv.float_mask(visible, dtype)
        masks = dict.fromkeys(decoder.kinds, mask)
        positions = torch.arange(start, stop, device=device).expand(len(ids), -1)
        got = decoder.logits(ids[:, start:stop], positions, masks, cache).float()
        wanted = expected[:, stop - 1]
        # Not `>`: what is no number disagrees too.
        if not (got - wanted).abs().max() <= close * wanted.abs().max():
            return False
        start = stop
    return True
