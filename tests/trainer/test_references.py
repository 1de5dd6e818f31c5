"""What the parent said is kept bit for bit, and an update holds no tensors of its whole batch."""

import gc

import pytest
import torch

from tacit.policies import load_model, load_tokenizer
from tests import builders as build
from tests.trainer.builders import mixed_events, replay_examples, settings
from trainer.checkpoint import OpenPolicy
from trainer.collective import Collective
from trainer.examples import build_examples
from trainer.objective import Reference
from trainer.optimize import Optimization
from trainer.references import References


def reference(size: int, *, mismatched: bool, dtype: torch.dtype) -> Reference:
    torch.manual_seed(size)
    return Reference(
        logprobs=torch.randn(size),
        mismatched=torch.randn(size) if mismatched else None,
        hidden=torch.randn(size, 5).to(dtype)[:, 1:4],
        taught=torch.randn(0, 4),
        probes=torch.arange(size),
        probed=torch.randn(size, 4).to(dtype),
    )


@pytest.mark.parametrize("max_memory_bytes", [0, 2**20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_references_come_back_bit_for_bit_in_any_order(max_memory_bytes, dtype):
    kept = [reference(n, mismatched=n % 2 == 0, dtype=dtype) for n in (3, 4, 1)]
    found = References(torch.device("cpu"), max_memory_bytes=max_memory_bytes)
    for one in kept:
        found.append(one)
    assert len(found) == 3
    for number in (2, 0, 1, 0):
        for name, value in vars(kept[number]).items():
            read = getattr(found[number], name)
            if value is None:
                assert read is None
            else:
                assert read.dtype == value.dtype
                assert torch.equal(read, value), name


def held_bytes() -> int:
    """Of all tensors in this process."""
    gc.collect()
    tensors = [found for found in gc.get_objects() if type(found) is torch.Tensor]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def test_an_update_holds_no_tensors_that_grow_with_its_batch(store):
    parent = build.tiny_checkpoint(store)
    tokenizer = load_tokenizer(store, parent)

    def held(num_events: int) -> int:
        model = load_model(store, parent).eval().requires_grad_(True)
        policy = OpenPolicy(model=model, tokenizer=tokenizer, base=None)
        events, replay = mixed_events(num_events), replay_examples(num_events // 4)
        examples = build_examples(tokenizer, events, replay, max_length=512)
        update = Optimization(policy, examples, settings=settings(), group=Collective())
        steps = update.run()
        next(steps)
        return held_bytes()

    held(12)
    assert held(120) <= held(12) + 4_096
