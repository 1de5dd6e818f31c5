"""Replay held to the frozen anchor, and updates that start from it: settings to candidate."""

import pytest
import torch

from tacit.checkpoints import CheckpointStore
from tacit.config import TrainerSettings, load_settings
from tacit.contracts import Digest
from tacit.errors import ConfigError, IntegrityError
from tacit.policies import load_policy
from tests import builders as build
from tests.trainer.builders import mixed_events, replay_examples, seal, settings, train
from tests.trainer.here import Here
from trainer.progress import TrainedPolicy
from trainer.update import PolicyTrainer

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

EVENTS, REPLAY = mixed_events(4), replay_examples(8)


@pytest.fixture
def parent(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> Digest:
    """What one update away from the anchor serves."""
    monkeypatch.setattr("trainer.update.connect", lambda **_: False)
    chosen = settings(num_workers=1, full_fine_tuning=True, learning_rate=2e-3, num_epochs=4)
    weights, _ = train(store, build.tiny_checkpoint(store), EVENTS, settings=chosen)
    return weights


def chosen(reference: str, **fields: object) -> TrainerSettings:
    values = {"num_workers": 1, "full_fine_tuning": True, "learning_rate": 1e-3, "num_epochs": 6}
    return settings(**{**values, "kl_weight": 20.0, "kl_reference": reference, **fields})


def update(
    store: CheckpointStore, parent: Digest, given: TrainerSettings, *, start: Digest | None = None
) -> TrainedPolicy:
    trainer = PolicyTrainer(given, store, open_group=lambda _: Here(store))
    batch = seal(parent, EVENTS, REPLAY).model_copy(update={"start": start})
    anchor = build.tiny_checkpoint(store)
    return trainer.update(batch, EVENTS, REPLAY, on_step=lambda step: None, anchor=anchor)


@torch.no_grad()
def distance(store: CheckpointStore, one: Digest, other: Digest) -> float:
    """Mean KL between two policies on replay prompts."""
    first, second = (load_policy(store, weights) for weights in (one, other))
    total = 0.0
    for example in REPLAY:
        ids = torch.tensor([first.prompt_ids(example.prompt)])
        p, q = (policy.model(ids).logits[0, -1].log_softmax(-1) for policy in (first, second))
        total += float((p.exp() * (p - q)).sum())
    return total / len(REPLAY)


def test_replay_stays_near_the_anchor_and_the_candidate_says_which(
    store: CheckpointStore, parent: Digest
) -> None:
    anchor = build.tiny_checkpoint(store)
    near = update(store, parent, chosen("anchor"))
    far = update(store, parent, chosen("parent"))
    assert near.config["kl_reference"] == anchor
    assert far.config["kl_reference"] == "parent"
    assert distance(store, near.weights, anchor) < 0.8 * distance(store, far.weights, anchor)
    named = update(store, parent, chosen(anchor))
    assert named.weights == near.weights
    first = update(store, anchor, chosen("anchor"))  # the parent of a line's first candidate
    assert first.weights == update(store, anchor, chosen("parent")).weights


@pytest.mark.parametrize("full_fine_tuning", [True, False])
def test_an_update_that_starts_from_the_anchor_owes_its_parent_nothing(
    store: CheckpointStore, parent: Digest, full_fine_tuning: bool
) -> None:
    given = chosen("parent", full_fine_tuning=full_fine_tuning)
    anchor = build.tiny_checkpoint(store)
    rebuilt = update(store, parent, given, start=anchor)
    assert rebuilt.weights == update(store, anchor, given).weights
    assert rebuilt.weights != update(store, parent, given).weights


def test_a_damaged_anchor_is_refused(store: CheckpointStore, parent: Digest) -> None:
    with (store.path(build.tiny_checkpoint(store)) / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        update(store, parent, chosen("anchor"))
    assert update(store, parent, chosen("anchor", kl_weight=0.0)).weights


def test_layers_shared_out_over_gpus_are_held_to_the_parent() -> None:
    with pytest.raises(ConfigError, match=r"sharding=none with trainer\.kl_reference=anchor"):
        load_settings(overrides=["trainer.sharding=fsdp2", "trainer.kl_reference=anchor"])
