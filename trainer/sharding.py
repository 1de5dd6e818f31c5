"""FSDP2: layers are shared out over the workers, each gathers a layer when it computes with it.

Zhao et al. 2023, arXiv 2304.11277, in torch's second form (``fully_shard``). Embeddings, the last
norm and the vocabulary head stay whole on every worker: the head is applied by itself, to the
completion tokens alone. Every pass through the model is then a meeting of all workers, so that all
must make the same number of passes; ``Lockstep`` sees to it.
"""

import contextlib
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers.modeling_layers import GradientCheckpointingLayer

from tacit.errors import ConfigError
from trainer.checkpoint import OpenPolicy
from trainer.collective import Collective
from trainer.packing import to_device
from trainer.scoring import CompletionScorer
from trainer.sequences import collate


def shard(policy: OpenPolicy, *, device: str) -> None:
    """Share out the layers of ``policy``, in place; the process group must be there.

    The policy may lie in the memory of the host: a layer at a time goes to ``device``, this
    worker's rows of it stay. Raises ConfigError for a model whose layers transformers does not
    mark.
    """
    model = policy.model.get_base_model() if policy.base is not None else policy.model
    body = model.base_model
    layers = [m for m in body.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not layers:
        raise ConfigError(
            "a model with layers that can be sharded for trainer.sharding=fsdp2",
            got=type(model).__name__,
        )
    sharded = {p for layer in layers for p in layer.parameters()}
    whole = {p for p in policy.model.parameters() if p not in sharded}
    mesh = init_device_mesh(device, (dist.get_world_size(),))
    for layer in layers:
        fully_shard(layer, mesh=mesh)
        # The objective divides by all workers' weights; gloo knows no other reduction than sums.
        layer.set_gradient_divide_factor(1.0)
        layer.set_force_sum_reduction_for_comms(True)
    fully_shard(body, mesh=mesh, ignored_params=whole)
    for parameter in whole:
        parameter.data = parameter.data.to(device)


def whole_weights(policy: OpenPolicy) -> dict[str, Tensor]:
    """Trained parameters by their names, whole and on the host. All workers must call it."""
    return {
        name: _whole(parameter.detach()).cpu()
        for name, parameter in policy.model.named_parameters()
        if parameter.requires_grad
    }


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


class Lockstep:
    """Lets a worker with fewer micro-batches than another make up for it with idle passes."""

    def __init__(self, scorer: CompletionScorer, group: Collective) -> None:
        self._scorer = scorer
        self._group = group
        parameters = list(scorer.model.parameters())
        self._is_sharded = any(isinstance(p, DTensor) for p in parameters)
        self._device = parameters[0].device

    @contextlib.contextmanager
    def passes(self, number: int, *, backward: bool = False) -> Iterator[None]:
        """Around ``number`` passes of this worker, with gradient if ``backward``.

        Idle passes follow where another worker makes more; their gradient is zero.
        """
        missing = self._group.max(number) - number if self._is_sharded else 0
        yield
        for _ in range(missing):
            self._idle(backward=backward)

    def _idle(self, *, backward: bool) -> None:
        tokens = to_device(collate([((0,), (0,))], pad_id=0), self._device)
        with torch.set_grad_enabled(backward):
            nothing = 0.0 * self._scorer.hidden(tokens).sum()
        if backward:
            nothing.backward()  # type: ignore[no-untyped-call]
