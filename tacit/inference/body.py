"""A causal language model taken apart: its body makes hidden states, its head makes logits.

Only the logits that are needed are computed, masks and positions are ours, and keys and values of a
shared beginning are computed once. Whether a model bears that is tried on a few tokens, not guessed
from its name; where it does not, ``transformers``' own ways are used.
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from tacit.inference import kv

logger = logging.getLogger(__name__)

MIN_SHARED = 8
"""Tokens of a beginning below which computing it once is not worth a call of the model."""


class Body:
    """The parts of one model."""

    def __init__(self, model: Any) -> None:
        self.model = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.config = model.config
        self._implementation = getattr(model.config, "_attn_implementation", "eager")
        self._dtype: torch.dtype = next(model.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        device: torch.device = next(self.model.parameters()).device
        return device

    def hidden(
        self, ids: Tensor, visible: Tensor, positions: Tensor, cache: Cache | None
    ) -> Tensor:
        """[B, S, H] hidden states of token ids [B, S].

        ``visible`` [B, S, L] says which of the L tokens in ``cache`` and ``ids`` each token sees,
        ``positions`` [B, S] or [1, S] where in its sequence it stands.
        """
        mask = visible.unsqueeze(1)
        if self._implementation == "eager":
            mask = kv.float_mask(mask, self._dtype)
        output = self.model.base_model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        states: Tensor = output.last_hidden_state
        return states

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., V] logits in float32."""
        logits: Tensor = self.model.get_output_embeddings()(hidden)
        return logits.float()

    def beginning(self, prompts: Sequence[list[int]]) -> tuple[int, Cache | None]:
        """Length and cache of what all ``prompts`` begin with; 0 where it is too short to pay.

        At least one token of every prompt is left.
        """
        first, last = min(prompts), max(prompts)  # what these two share, all share
        limit = min(len(prompt) for prompt in prompts) - 1
        length = next((i for i in range(limit) if first[i] != last[i]), limit)
        if length < MIN_SHARED or len(prompts) == 1:
            return 0, None
        cache = kv.new_cache(self.config, capacity=length)
        ids = torch.tensor([first[:length]], device=self.device)
        visible = torch.ones(1, length, length, dtype=torch.bool, device=self.device).tril()
        self.hidden(ids, visible, torch.arange(length, device=self.device)[None], cache)
        return length, cache


def take_apart(model: Any) -> Body | None:
    """The parts of ``model``, or None if it computes something else when taken apart."""
    body = Body(model)
    try:
        with torch.inference_mode():
            if body._implementation in {"sdpa", "eager"} and _agrees(body):
                return body
    except (AttributeError, TypeError, ValueError, RuntimeError, IndexError, KeyError) as error:
        logger.debug("taking the model apart failed", exc_info=error)
    logger.info("%s is run as a whole", type(model).__name__)
    return None


def _agrees(body: Body) -> bool:
    """Whether a row behind padding and a shared beginning gets the logits it gets alone."""
    if not kv.is_plain(body.config) or body.model.base_model is body.model:
        return False
    beginning, rest, last = [1, 2, 3, 2, 1, 3, 1, 2], [2, 1], 3
    length, prefix = body.beginning([[*beginning, *rest], [*beginning, 3, 3]])
    assert prefix is not None
    cache = kv.new_cache(body.config, capacity=length + 3)
    kv.seed(cache, prefix, 1)
    device = body.device
    visible = torch.ones(1, 3, length + 3, dtype=torch.bool, device=device).tril(length)
    visible[:, 1:, length] = False  # padding, seen by itself alone
    positions = torch.tensor([[0, length, length + 1]], device=device)
    body.hidden(torch.tensor([[1, *rest]], device=device), visible, positions, cache)
    seen = torch.ones(1, 1, length + 4, dtype=torch.bool, device=device)
    seen[:, :, length] = False
    token = torch.tensor([[last]], device=device)
    states = body.hidden(token, seen, positions[:, -1:] + 1, cache)
    alone = torch.tensor([[*beginning, *rest, last]], device=device)
    expected = body.model(input_ids=alone).logits[:, -1].float()
    close = 1e-4 if body._dtype == torch.float32 else 5e-2
    return torch.allclose(body.logits(states[:, -1]), expected, rtol=close, atol=close)
