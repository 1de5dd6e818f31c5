"""Running out of memory: how it is told, and what an update is tried with next.

Microbatches bound the memory of a step, so an update that does not fit starts again with half of
``trainer.micro_batch_tokens``. It starts again rather than going on in the middle because gradients
summed in other portions have other bits: so a candidate is a function of one number, which stands
in its configuration.
"""

import ctypes
import logging
import platform

from tacit.config import TrainerSettings
from tacit.errors import TrainingError

logger = logging.getLogger(__name__)

MIN_MICRO_BATCH_TOKENS = 256
"""Below this nearly every example has a microbatch of its own, and halving gains nothing."""

_SIGNS = ("out of memory", "can't allocate memory", "cannot allocate memory", "alloc_failed")


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEEP_BYTES = 2**31 - 1


def keep_freed_memory() -> None:
    """Have glibc keep freed memory for the next step, which asks for the same again.

    It would give large tensors back to the kernel and get them again as pages to be cleared, which
    is a good part of a small policy's step. Other C libraries are left as they are.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _KEEP_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES)


class UpdateTooLargeError(TrainingError):
    """A worker ran out of memory in an update."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` is torch, a library below it or Python failing to allocate."""
    # On CPU torch raises a bare RuntimeError; only its words tell.
    said = str(error).lower()
    is_said = isinstance(error, RuntimeError) and any(sign in said for sign in _SIGNS)
    return isinstance(error, MemoryError) or is_said


def lighter(settings: TrainerSettings, error: UpdateTooLargeError) -> TrainerSettings:
    """``settings`` that need less memory: half the micro-batch, at the floor also checkpointing.

    Raises ``error`` in words for a person where neither is left. TRL's methods have no
    micro-batches.
    """
    tokens = settings.micro_batch_tokens
    if settings.method == "mixed" and tokens > MIN_MICRO_BATCH_TOKENS:
        return _with(settings, error, micro_batch_tokens=max(MIN_MICRO_BATCH_TOKENS, tokens // 2))
    if settings.gradient_checkpointing == "auto":
        return _with(settings, error, gradient_checkpointing="on")
    raise TrainingError(
        f"an update that fits into memory with trainer.method={settings.method}, "
        f"trainer.micro_batch_tokens={tokens} and "
        f"trainer.gradient_checkpointing={settings.gradient_checkpointing}",
        got=error.got,
        mend="Lower trainer.max_length, trainer.batch_size or trainer.lora.rank, shard the policy "
        "over several GPUs (trainer.sharding=fsdp2), or give the workers more memory.",
    ) from error


def _with(
    settings: TrainerSettings, error: UpdateTooLargeError, **changed: object
) -> TrainerSettings:
    ((name, value),) = changed.items()
    logger.warning(
        "out of memory (%s): the update starts again with trainer.%s=%s", error.got, name, value
    )
    return settings.model_copy(update=changed)
