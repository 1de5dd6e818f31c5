"""Groups meet where their tensors lie."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from trainer.collective import Collective, join
from trainer.weights import FlatParameters


@pytest.mark.parametrize(("device", "backend"), [("cpu", "gloo"), ("cuda", "nccl")])
def test_the_network_is_that_of_the_device_whatever_else_the_machine_has(
    monkeypatch, device, backend
):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(dist, "init_process_group", lambda name, **_: asked.append(name))
    join(rank=0, world_size=2, address="127.0.0.1:1", timeout_s=1, device=device)
    assert asked == [backend]


def test_without_parameters_the_vectors_still_lie_on_the_device():
    flat = FlatParameters([], device=torch.device("meta"))
    assert flat.values.is_meta
    assert flat.gradient.is_meta
    assert not FlatParameters([nn.Parameter(torch.ones(2))], device=None).gradient.is_meta


def test_one_worker_has_its_sum_at_once():
    assert Collective().start_sum(torch.tensor([3.0]))().tolist() == [3]
