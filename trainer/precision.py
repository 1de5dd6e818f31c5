"""Which precision matrices are multiplied in: what ``trainer.precision`` comes to on a processor.

Weights, gradients, normalisations, log-probabilities and losses are float32 in both; bf16 is mixed
precision in the sense of Micikevicius et al. 2017, arXiv 1710.03740, without loss scaling, which
bfloat16's exponent makes needless (Kalamkar et al. 2019, arXiv 1905.12322).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from trainer.provenance import AMX, CPU_INFO, processor_flags

Precision = Literal["auto", "fp32", "bf16"]


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


@contextmanager
def matrices_in_bf16(device: torch.device) -> Iterator[None]:
    """Linear layers multiply in bfloat16; so does attention on GPUs."""
    with torch.autocast(device.type, dtype=torch.bfloat16):
        if device.type == "cpu":
            with _AttentionInFloat32():
                yield
        else:
            yield


class _AttentionInFloat32(TorchFunctionMode):
    """On CPUs the backward pass of bfloat16 attention takes several times that of float32."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        with torch.autocast("cpu", enabled=False):
            query, key, value, *rest = args
            return func(query.float(), key.float(), value.float(), *rest, **(kwargs or {}))
