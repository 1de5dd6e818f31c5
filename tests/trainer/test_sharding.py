"""Layers shared out with FSDP2: the same update as with all of them on every worker."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from tacit.checkpoints import CheckpointStore
from tacit.contracts import Critique
from tacit.policies import load_policy
from tests import builders as build
from tests.trainer.builders import mixed_events, replay_examples, settings, train
from tests.trainer.pair import run_jobs
from trainer.session import UpdateJob

pytestmark = [pytest.mark.filterwarnings("ignore::FutureWarning"), pytest.mark.slow]

EVENTS = [
    *mixed_events(12),
    *(
        build.screened(f"c-{i}", prompt=f"so {i}", feedback=Critique(text="short"))
        for i in range(3)
    ),
]
REPLAY = replay_examples(2)
SMALL = {"micro_batch_tokens": 256}
"""So that workers differ in the number of their micro-batches; and the last step is of one example.
"""
NONE: dict[str, Any] = {}
FSDP2 = {"sharding": "fsdp2"}
VARIANTS = {
    (False, "none"): NONE,
    (False, "fsdp2"): FSDP2,
    (False, "bf16"): {**FSDP2, "precision": "bf16"},
    (True, "none"): NONE,
    (True, "fsdp2"): FSDP2,
    (True, "checkpointed"): {**FSDP2, "gradient_checkpointing": "on"},
}
"""By whether all weights are trained, and a name."""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Any:
    """What comes of each variant."""
    folder = tmp_path_factory.mktemp("sharding")
    store = CheckpointStore(folder / "checkpoints")
    parent = build.tiny_checkpoint(store)
    jobs = [
        UpdateJob(
            parent,
            tuple(EVENTS),
            tuple(REPLAY),
            settings(full_fine_tuning=full, **SMALL, **fields),
        )
        for (full, _), fields in VARIANTS.items()
    ]
    return store, parent, dict(zip(VARIANTS, run_jobs(store, jobs, folder), strict=True))


def answers(store, digest) -> torch.Tensor:
    """[1, T, V] logits of the policy, as everyone loads it."""
    with torch.no_grad():
        return load_policy(store, digest).model(input_ids=torch.arange(12).unsqueeze(0)).logits


@pytest.mark.parametrize("full", [False, True])
def test_losses_and_weights_are_those_of_whole_layers(made, full):
    store, parent, found = made
    whole, losses, _ = found[full, "none"]
    assert len(losses) == 6
    digest, sharded, _ = found[full, "fsdp2"]
    assert sharded == pytest.approx(losses, rel=1e-5, abs=1e-6)
    assert torch.allclose(answers(store, digest), answers(store, whole), atol=1e-5)
    moved = answers(store, whole) - answers(store, parent)
    assert moved.abs().max() > 1e-3


@pytest.mark.parametrize("full", [False, True])
def test_a_worker_holds_half_of_the_layers(made, full):
    store, parent, found = made
    _, _, whole = found[full, "none"]
    _, _, sharded = found[full, "fsdp2"]
    model = load_policy(store, parent).model
    outside = sum(p.numel() for p in model.parameters()) - sum(
        p.numel() for p in model.model.layers.parameters()
    )
    assert sharded - outside == pytest.approx((whole - outside) / 2, rel=0.01)


@pytest.mark.parametrize("full", [False, True])
def test_the_checkpoint_is_whole_and_as_any_other(made, full):
    store, _, found = made
    whole, sharded = (store.verify(found[full, name][0]) for name in ("none", "fsdp2"))
    assert (sharded.kind, sharded.base) == (whole.kind, whole.base)
    assert set(sharded.files) == set(whole.files)
    plain = settings(num_epochs=1)
    after, _ = train(store, found[full, "fsdp2"][0], EVENTS, REPLAY, settings=plain)
    assert after != found[full, "fsdp2"][0]


def test_layers_computed_again_change_nothing(made):
    _, _, found = made
    assert found[True, "checkpointed"][:2] == found[True, "fsdp2"][:2]


def test_bfloat16_comes_close(made):
    _, _, found = made
    losses = [found[False, name][1] for name in ("bf16", "none")]
    assert losses[0] == pytest.approx(losses[1], rel=2e-2, abs=1e-3)
    assert losses[0] != losses[1]


def test_one_worker_has_nobody_to_share_with(store):
    parent = build.tiny_checkpoint(store)
    alone, _ = train(store, parent, EVENTS, settings=settings(sharding="fsdp2"))
    assert alone == train(store, parent, EVENTS, settings=settings())[0]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"method": "sft"}, r"trainer\.method=sft"),
        ({"ewc": {"weight": 1.0}}, r"trainer\.ewc\.weight"),
        ({"sparse": {"fraction": 0.5}}, r"trainer\.sparse\.fraction"),
    ],
)
def test_what_needs_the_weights_whole_is_refused(fields, named):
    with pytest.raises(ValidationError, match=named):
        settings(sharding="fsdp2", **fields)
