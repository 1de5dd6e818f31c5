"""Logits at completion positions only.

A prompt is several times as long as its completion here, and a vocabulary projection costs as much
as several layers, so the head is applied where a completion token is predicted and nowhere else.
"""

import copy
import logging
from typing import Any

import torch
from torch import Tensor

from trainer.sequences import Sequences

logger = logging.getLogger(__name__)


class CompletionScorer:
    """A model split into its body (token ids to hidden states) and its vocabulary head.

    The split is used only where a probe shows that it gives the model's own logits; otherwise
    (logit scaling, soft caps, unusual architectures) the whole model runs and its logits stand in
    for the hidden states. Works on the model inside a PEFT wrapper, whose LoRA layers sit in place.
    """

    def __init__(self, model: Any) -> None:
        self.model = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._head: Any = None
        if _can_split(self.model):
            self._head = self.model.get_output_embeddings()
        else:
            logger.info("%s computes logits on prompts too", type(self.model).__name__)

    @property
    def splits(self) -> bool:
        """Whether the head is applied to completion positions only."""
        return self._head is not None

    def hidden(self, sequences: Sequences) -> Tensor:
        """[M, H] hidden state that predicts each completion token (its logits if not split)."""
        inputs = {
            "input_ids": sequences.input_ids,
            "attention_mask": sequences.attention_mask,
            "use_cache": False,
        }
        if self.splits:
            states: Tensor = self.model.base_model(**inputs).last_hidden_state
        else:
            states = self.model(**inputs).logits
        return states[sequences.rows, sequences.columns]

    def logprobs(self, hidden: Tensor) -> Tensor:
        """[M, V] natural-log probabilities in float32 of hidden states [M, H]."""
        logits = self._head(hidden) if self.splits else hidden
        return logits.float().log_softmax(-1)

    def frozen(self) -> "CompletionScorer":
        """A scorer whose head stays as it is now, for reference log-probabilities of hidden states.

        Shares the head where nothing trains it.
        """
        twin = copy.copy(self)
        if self.splits and any(p.requires_grad for p in self._head.parameters()):
            twin._head = copy.deepcopy(self._head).requires_grad_(False)
        return twin


def _can_split(model: Any) -> bool:
    head = model.get_output_embeddings()
    if head is None or model.base_model is model:
        return False
    probe = torch.arange(1, 5, device=head.weight.device).unsqueeze(0)
    with torch.no_grad():
        try:
            split = head(model.base_model(input_ids=probe, use_cache=False).last_hidden_state)
        except (AttributeError, TypeError, ValueError, RuntimeError):
            return False
        whole = model(input_ids=probe, use_cache=False).logits
    return split.shape == whole.shape and torch.allclose(split, whole, rtol=1e-3, atol=1e-4)
