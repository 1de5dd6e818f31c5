"""What runs on GPUs alone: bfloat16 there, and FSDP2 over NCCL."""

from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing

from tacit.checkpoints import CheckpointStore
from tacit.policies import load_policy
from tacit.ports import free_port
from tests import builders as build
from tests.trainer.builders import mixed_events, replay_examples, settings, train
from trainer.checkpoint import PolicyOpener, save_policy
from trainer.collective import Collective
from trainer.examples import build_examples
from trainer.optimize import Optimization
from trainer.session import TrainingSession, configure_process
from trainer.sharding import shard, whole_weights

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

EVENTS, REPLAY = mixed_events(13), replay_examples(2)
BF16 = settings(precision="bf16", micro_batch_tokens=256)


def losses(steps) -> list[float]:
    return [step.metrics["train/loss"] for step in steps]


@pytest.mark.parametrize("checkpointing", ["off", "on"])
def test_a_gpu_learns_in_bfloat16_what_a_cpu_does_in_float32(store, checkpointing):
    parent = build.tiny_checkpoint(store)
    _, expected = train(store, parent, EVENTS, REPLAY, settings=settings(micro_batch_tokens=256))
    chosen = BF16.model_copy(update={"gradient_checkpointing": checkpointing})
    session = TrainingSession(store, device="cuda")
    digest, steps = train(store, parent, EVENTS, REPLAY, settings=chosen, session=session)
    assert losses(steps) == pytest.approx(losses(expected), rel=3e-2, abs=1e-2)
    store.verify(digest)


def _sharded(rank: int, world_size: int, address: str, root: Path, parent: str, out: Path) -> None:
    torch.cuda.set_device(rank)
    configure_process(num_threads=1, device="cuda")
    distributed.init_process_group(
        "nccl", init_method=f"tcp://{address}", rank=rank, world_size=world_size
    )
    store, chosen = CheckpointStore(root), BF16.model_copy(update={"sharding": "fsdp2"})
    policy = PolicyOpener(store, device="cpu").open(parent, chosen)
    shard(policy, device="cuda")
    examples = build_examples(policy.tokenizer, EVENTS, REPLAY, max_length=512)
    group = Collective(rank=rank, world_size=world_size)
    steps = list(Optimization(policy, examples, settings=chosen, group=group).run())
    weights = whole_weights(policy)
    if rank == 0:
        plain = PolicyOpener(store, device="cpu").open(parent, chosen)
        plain.load(weights)
        torch.save((losses(steps), save_policy(store, plain, parent=parent)), out)
    distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_layers_sharded_over_nccl_learn_the_same(store, tmp_path):
    """On as many GPUs as there are, up to two; on one it still goes through FSDP2 and NCCL."""
    world_size = min(2, torch.cuda.device_count())
    parent = build.tiny_checkpoint(store)
    address = f"127.0.0.1:{free_port()}"
    out = tmp_path / "sharded"
    multiprocessing.spawn(
        _sharded, args=(world_size, address, store.root, parent, out), nprocs=world_size
    )
    sharded, digest = torch.load(out)
    whole, steps = train(
        store,
        parent,
        EVENTS,
        REPLAY,
        settings=BF16,
        session=TrainingSession(store, device="cuda"),
    )
    assert sharded == pytest.approx(losses(steps), rel=1e-2, abs=1e-3)
    tokens = torch.arange(12).unsqueeze(0)
    with torch.no_grad():
        found, expected = (
            load_policy(store, each).model(input_ids=tokens).logits for each in (digest, whole)
        )
    assert torch.allclose(found, expected, atol=0.05)
