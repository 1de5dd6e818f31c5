"""What an update trains, as few tensors as can be: a flat vector, and shards of sharded layers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from trainer.collective import Collective


class FlatParameters:
    """Trainable parameters and their gradients as views into one vector each.

    So a step is one all-reduce, one norm and one AdamW kernel, however many matrices there are.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], *, device: torch.device | None = None
    ) -> None:
        """``device``: where the vectors lie when there are no parameters."""
        found = [p.detach().reshape(-1) for p in parameters]
        self.values = nn.Parameter(torch.cat(found) if found else torch.zeros(0, device=device))
        self.values.grad = torch.zeros_like(self.values)
        start = 0
        for parameter in parameters:
            end = start + parameter.numel()
            parameter.data = self.values.data[start:end].view_as(parameter)
            parameter.grad = self.values.grad[start:end].view_as(parameter)
            start = end

    @property
    def gradient(self) -> Tensor:
        """[number of trainable weights]"""
        assert self.values.grad is not None
        return self.values.grad


class TrainedWeights:
    """Trainable parameters of one worker, what they have learned, and the optimizer.

    What every worker holds whole is flat, and its gradient is summed here. Layers that are sharded
    hold this worker's rows; FSDP has summed their gradients when the backward pass ends.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], group: Collective) -> None:
        self._group = group
        self._shards = [p for p in parameters if isinstance(p, DTensor)]
        whole = [p for p in parameters if not isinstance(p, DTensor)]
        # NCCL takes no tensor of the host's, not even an empty one.
        self.flat = FlatParameters(whole, device=parameters[0].device if parameters else None)
        # All workers start from rank 0's. Shards are rows of what each drew from the same seed.
        group.broadcast(self.flat.values.data)
        self._optimizers = [
            torch.optim.AdamW(held, lr=0.0, weight_decay=0.0, fused=True)
            for held in ([self.flat.values], self._shards)
            if sum(tensor.numel() for tensor in held)
        ]

    def zero_gradient(self) -> None:
        """Forget the gradient of the step before."""
        self.flat.gradient.zero_()
        for shard in self._shards:
            shard.grad = None

    def sum_gradient(self) -> None:
        """Add up what the workers found, after the last backward pass of a step."""
        self._group.sum(self.flat.gradient)

    def gradient_norm(self) -> float:
        """Of all weights, on all workers."""
        norm = torch.linalg.vector_norm(self.flat.gradient)
        if not self._shards:
            return float(norm)
        squares = [torch.linalg.vector_norm(rows).square() for rows in self._local_gradients()]
        total = self._group.sum(torch.stack(squares).sum())
        return float((norm.to(total.device).square() + total).sqrt())

    def scale_gradient(self, factor: float) -> None:
        """Multiply it, in place."""
        self.flat.gradient.mul_(factor)
        for rows in self._local_gradients():
            rows.mul_(factor)

    def step(self, learning_rate: float) -> None:
        """One step of AdamW."""
        for optimizer in self._optimizers:
            optimizer.param_groups[0]["lr"] = learning_rate
            optimizer.step()

    def _local_gradients(self) -> list[Tensor]:
        gradients = [shard.grad for shard in self._shards]
        return [found.to_local() for found in gradients if isinstance(found, DTensor)]
