"""Logits at completion positions only.

A prompt is several times as long as its completion here, and a vocabulary projection costs as much
as several layers, so the head is applied where a completion token is predicted and nowhere else.
"""

import contextlib
import copy
import logging
from typing import Any

import torch
from torch import Tensor

from trainer.kernels import with_filler
from trainer.packing import to_device
from trainer.precision import attend_in_float32, matrices_in_bf16
from trainer.sequences import Sequences, collate

logger = logging.getLogger(__name__)


class CompletionScorer:
    """A model split into its body (token ids to hidden states) and its vocabulary head.

    The split is used only where a probe shows that it gives the model's own logits; otherwise
    (logit scaling, soft caps, unusual architectures) the whole model runs and its logits stand in
    for the hidden states. Works on the model inside a PEFT wrapper, whose LoRA layers sit in place.
    """

    def __init__(self, model: Any, *, bf16: bool = False) -> None:
        """``bf16`` multiplies matrices in bfloat16; all else stays as it is."""
        self.model = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._bf16 = False
        self._head: Any = None
        if _can_split(self.model):
            self._head = self.model.get_output_embeddings()
        else:
            logger.info("%s computes logits on prompts too", type(self.model).__name__)
        self.shares_prompts = self._can_share()
        """Whether completions of one prompt may stand behind it in one row."""
        self._bf16 = bf16
        if bf16:
            attend_in_float32(self.model)

    @property
    def splits(self) -> bool:
        """Whether the head is applied to completion positions only."""
        return self._head is not None

    def hidden(self, sequences: Sequences) -> Tensor:
        """[M, H] hidden state that predicts each completion token (its logits if not split)."""
        inputs = {"input_ids": sequences.input_ids}
        if sequences.branches is None:
            inputs["attention_mask"] = sequences.attention_mask
        else:
            inputs["attention_mask"] = sequences.visible()
            inputs["position_ids"] = sequences.position_ids
        if self._compiles(sequences.input_ids):
            inputs = {name: with_filler(given, value=1) for name, given in inputs.items()}
        with self._precision(sequences.input_ids.device):
            if self.splits:
                states: Tensor = self.model.base_model(**inputs, use_cache=False).last_hidden_state
            else:
                states = self.model(**inputs, use_cache=False).logits
        return states[sequences.rows, sequences.columns]

    def _precision(self, device: torch.device) -> contextlib.AbstractContextManager[Any]:
        return matrices_in_bf16(device) if self._bf16 else contextlib.nullcontext()

    def logprobs(self, hidden: Tensor) -> Tensor:
        """[M, V] natural-log probabilities in float32 of hidden states [M, H]."""
        if not self.splits:
            return hidden.float().log_softmax(-1)
        states = with_filler(hidden) if self._compiles(hidden) else hidden
        with self._precision(hidden.device):
            logits: Tensor = self._head(states)[: len(hidden)]
        return logits.float().log_softmax(-1)

    def _compiles(self, given: Tensor) -> bool:
        """Whether a kernel is compiled for each number of rows."""
        return self._bf16 and given.device.type == "cpu"

    def frozen(self) -> "CompletionScorer":
        """A scorer whose head stays as it is now, for reference log-probabilities of hidden states.

        Shares the head where nothing trains it.
        """
        twin = copy.copy(self)
        if self.splits and any(p.requires_grad for p in self._head.parameters()):
            twin._head = copy.deepcopy(self._head).requires_grad_(False)
        return twin

    def head_only(self) -> "CompletionScorer":
        """A scorer that can turn this one's hidden states into log-probabilities, and no more."""
        twin = copy.copy(self)
        twin.model = None
        return twin

    def _can_share(self) -> bool:
        """Whether this model keeps completions of one prompt apart; tried on a few tokens."""
        if not _attends_to_all(self.model.config):
            return False
        device = next(self.model.parameters()).device
        shared, other, apart = (
            to_device(collate(texts, pad_id=0), device)
            for texts in (
                [((1, 2, 3), (4, 3), (2, 1, 4))],
                [((1, 2, 3), (2, 2), (2, 1, 4))],
                [((1, 2, 3), (4, 3)), ((1, 2, 3), (2, 1, 4))],
            )
        )
        with torch.no_grad():
            try:
                found, moved = self.hidden(shared), self.hidden(other)
            except (AttributeError, TypeError, ValueError, RuntimeError):
                return False
            expected = self.hidden(apart)
        close = 1e-4 if found.dtype == torch.float32 else 5e-2
        # What a completion's neighbour says may not leave a trace, not even in the last bit.
        return torch.equal(found[2:], moved[2:]) and torch.allclose(
            found, expected, rtol=close, atol=close
        )


def _attends_to_all(config: Any) -> bool:
    """Whether no layer looks through a window, which a mask of our own would open."""
    layers = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None)
    return layers == {"full_attention"} and (
        window is None or not getattr(config, "use_sliding_window", True)
    )


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
