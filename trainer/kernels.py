"""Few shapes, so that few kernels are compiled for products of bfloat16 matrices on CPUs.

oneDNN compiles a kernel for each shape, which takes milliseconds, and keeps a bounded number of
them. Micro-batches that all differ in their number of rows would have it compile in every step, and
as long for a worker's half of the step as for all of it. So rows without meaning are added up to
one of few numbers.
"""

import os

from torch import Tensor
from torch.nn import functional as F

MAX_KERNELS = 160
"""More than an update's usual shapes need. Of 1,024, the default, each worker would hold hundreds
of MB after a while."""
SIZES_PER_DOUBLING = 4


def bound_kernel_caches() -> None:
    """Have oneDNN keep few compiled kernels.

    To be called before the first of them; what the environment says already stands.
    """
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, str(MAX_KERNELS))


def rounded_up(number: int) -> int:
    """The next of few sizes: 1 to 8, 10, 12, 14, 16, 20, 24, 28, 32, 40 and so on."""
    unit = 1
    while number > 2 * SIZES_PER_DOUBLING * unit:
        unit *= 2
    return -(-number // unit) * unit


def with_filler(given: Tensor, *, value: float = 0) -> Tensor:
    """``given`` [R, ...] with rows full of ``value`` behind its own, as many as round R up."""
    missing = rounded_up(len(given)) - len(given)
    sides = (0, 0) * (given.dim() - 1) + (0, missing)
    return F.pad(given, sides, value=value) if missing else given
