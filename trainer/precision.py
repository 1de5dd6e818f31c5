"""Which precision matrices are multiplied in: what ``trainer.precision`` comes to on a processor.

Weights, gradients, normalisations, log-probabilities and losses are float32 in both; bf16 is mixed
precision in the sense of Micikevicius et al. 2017, arXiv 1710.03740, without loss scaling, which
bfloat16's exponent makes needless (Kalamkar et al. 2019, arXiv 1905.12322).
"""

import contextlib
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from trainer.provenance import AMX, CPU_INFO, processor_flags

Precision = Literal["auto", "fp32", "bf16"]

FLOAT32_ATTENTION = "sdpa_float32"
"""What transformers is told that attention is called."""


def has_fast_bf16(device: str, *, cpu_info: Path = CPU_INFO) -> bool:
    """Whether bfloat16 matrices have units of their own here: AMX, or a GPU from Ampere on."""
    if device != "cpu":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return AMX in processor_flags(cpu_info=cpu_info)


def resolve_precision(precision: Precision, *, fast_bf16: bool) -> Literal["fp32", "bf16"]:
    """``precision`` without auto, which is bf16 where that is fast."""
    if precision == "auto":
        return "bf16" if fast_bf16 else "fp32"
    return precision


def is_bf16(precision: Precision, device: torch.device) -> bool:
    """Whether matrices are multiplied in bfloat16 on ``device``."""
    return resolve_precision(precision, fast_bf16=has_fast_bf16(device.type)) == "bf16"


def matrices_in_bf16(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Linear layers multiply in bfloat16; so does attention, unless ``attend_in_float32``."""
    return torch.autocast(device.type, dtype=torch.bfloat16)


def attend_in_float32(model: Any) -> None:
    """Have ``model`` compute attention in float32 on CPUs, in place, whatever else is in bfloat16.

    There the backward pass of bfloat16 attention takes several times that of float32. Nothing
    changes in float32, and on models whose attention transformers cannot exchange.
    """
    if model.device.type == "cpu" and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(FLOAT32_ATTENTION)


def _attention_in_float32(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
) -> tuple[Tensor, None]:
    with torch.autocast("cpu", enabled=False):
        attended: tuple[Tensor, None] = sdpa_attention_forward(
            module, query.float(), key.float(), value.float(), *args, **kwargs
        )
    return attended


AttentionInterface.register(FLOAT32_ATTENTION, _attention_in_float32)
AttentionMaskInterface.register(FLOAT32_ATTENTION, sdpa_mask)
