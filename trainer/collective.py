"""What the workers of a data-parallel group say to each other: sums, and little else."""

from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor


class Collective:
    """One worker's place in the group. A group of one needs no network."""

    def __init__(self, *, rank: int = 0, world_size: int = 1) -> None:
        self.rank = rank
        self.world_size = world_size

    def sum(self, tensor: Tensor) -> Tensor:
        """Add ``tensor`` up over all workers, in place; every worker gets the same bits."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def start_sum(self, tensor: Tensor) -> Callable[[], Tensor]:
        """``sum`` beside what comes next; ``tensor`` is to be had from what is returned alone."""
        if self.world_size == 1:
            return lambda: tensor
        work = dist.all_reduce(tensor, async_op=True)
        assert work is not None

        def finish() -> Tensor:
            work.wait()
            return tensor

        return finish

    def max(self, number: int) -> int:
        """The largest of the workers' numbers."""
        if self.world_size == 1:
            return number
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        found = torch.tensor(number, device=device)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

    def broadcast(self, tensor: Tensor) -> Tensor:
        """Overwrite ``tensor`` with rank 0's, in place."""
        if self.world_size > 1:
            dist.broadcast(tensor, src=0)
        return tensor

    def leave(self) -> None:
        """Close the group."""
        if self.world_size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def join(
    *, rank: int, world_size: int, address: str, timeout_s: float, device: str = "cpu"
) -> Collective:
    """Enter the group that meets at ``address`` (``host:port``).

    It talks over NCCL where tensors lie on GPUs (``device``), whatever else the machine has, and
    over gloo elsewhere. Raises torch's DistError when the others do not come within ``timeout_s``.
    """
    if world_size > 1:
        dist.init_process_group(
            "gloo" if device == "cpu" else "nccl",
            init_method=f"tcp://{address}",
            rank=rank,
            world_size=world_size,
            timeout=timedelta(seconds=timeout_s),
        )
    return Collective(rank=rank, world_size=world_size)
