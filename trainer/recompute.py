"""Gradient checkpointing: what a layer computed is computed again in the backward pass, not kept.

Chen et al. 2016, arXiv 1604.06174: memory for about a third more time. Kernels are the same and no
layer draws random numbers, so that on CPUs gradients are the same too, bit for bit.
"""

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from tacit.errors import ConfigError
from trainer.precision import matrices_in_bf16


@contextlib.contextmanager
def recomputed(model: Any, *, bf16: bool) -> Iterator[None]:
    """Passes with gradient keep the inputs of layers alone.

    transformers' own switch wants the model in training mode, where dropout would be on.
    ``bf16``: matrices are multiplied in it, and have to be the second time as well. Raises
    ConfigError for a model whose layers transformers does not mark.
    """
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not layers:
        raise ConfigError(
            "a model with layers that can be computed again for trainer.gradient_checkpointing=on",
            got=type(model).__name__,
        )
    device = next(model.parameters()).device
    for layer in layers:
        layer.forward = partial(
            checkpoint,
            layer.forward,
            use_reentrant=False,
            preserve_rng_state=False,
            context_fn=lambda: (
                contextlib.nullcontext(),
                matrices_in_bf16(device) if bf16 else contextlib.nullcontext(),
            ),
        )
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
