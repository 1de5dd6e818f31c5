"""How many threads share one operation of a forward pass.

A small model's operations take microseconds, and to hand a part of each to another thread takes as
long. Threads that wait for the next operation spin, too, on the cores that the event loop needs:
with two threads on two cores a step of 2.5 million weights took four times as long as with one.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

WEIGHTS_PER_THREAD = 8_000_000
"""At least so many of the model's weights make it worth another thread."""


def num_threads(num_weights: int, *, available: int) -> int:
    """Threads for a model of ``num_weights``; a core of ``available`` stays for the event loop."""
    return max(1, min(num_weights // WEIGHTS_PER_THREAD, available - 1))


@contextmanager
def running_on(threads: int) -> Iterator[None]:
    """What is computed within by the calling thread runs on so many."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
