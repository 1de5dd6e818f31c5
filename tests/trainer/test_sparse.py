"""Which weights may move, and that all others stay as they are, bit for bit."""

import pytest
import torch
from safetensors.torch import load_file

from tests import builders as build
from tests.trainer.builders import mixed_events, replay_examples, settings, train
from tests.trainer.learners import open_whole, restrained, side_by_side
from trainer.interpolate import interpolate
from trainer.sparse import choose_frozen

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def test_weights_move_that_the_batch_wants_and_replay_does_not_need():
    batch = torch.tensor([0.5, -0.5, 0.1, 0.0])
    fisher = torch.tensor([0.01, 1.0, 0.0, 0.0])
    # Roots 0.1, 1, 0, 0, whose mean is 0.275; scores 1.33, 0.39, 0.36, 0.
    assert choose_frozen(batch, fisher, fraction=0.25).tolist() == [False, True, True, True]
    assert choose_frozen(batch, fisher, fraction=0.5).tolist() == [False, False, True, True]
    assert choose_frozen(batch, fisher, fraction=0.01).sum() == 3


def test_without_replay_the_batch_alone_decides():
    batch = torch.tensor([0.1, -0.5, 0.3])
    assert choose_frozen(batch, torch.zeros(3), fraction=2 / 3).tolist() == [True, False, False]


@pytest.mark.parametrize("add_on", [{}, {"ewc": {"weight": 10.0}}])
def test_only_the_fraction_moves(store, add_on):
    made, _ = restrained(open_whole(store), sparse={"fraction": 0.02}, num_epochs=2, **add_on)
    changed = int((made.after != made.before).sum())
    budget = round(0.02 * len(made.before))
    assert 0.9 * budget < changed <= budget


def test_workers_choose_the_same_weights_and_as_many_as_one_would(store):
    policies = [open_whole(store) for _ in range(3)]

    def on(group=None):
        fields = {"sparse": {"fraction": 0.05}, "num_epochs": 1}
        return restrained(policies.pop(), group=group, **fields)[0].moved

    first, second = side_by_side(on)
    alone = on()
    assert torch.equal(first, second)
    both = ((first > 0) & (alone > 0)).sum() / (alone > 0).sum()
    assert both > 0.99  # two scores that are equal but for rounding may change places


@pytest.mark.parametrize("full", [False, True])
def test_checkpoints_differ_from_the_parent_in_the_fraction_alone(store, full):
    base = build.tiny_checkpoint(store)
    plain = settings(full_fine_tuning=full, num_epochs=1)
    parent, _ = train(store, base, mixed_events(6), settings=plain)
    chosen = settings(full_fine_tuning=full, sparse={"fraction": 0.05})
    made, _ = train(store, parent, mixed_events(), replay_examples(), settings=chosen)
    again, _ = train(store, parent, mixed_events(), replay_examples(), settings=chosen)
    assert made == again
    assert 0.04 < share_changed(store, parent, made) <= 0.0501
    if full:
        # A variant between both leaves the same weights alone.
        between = interpolate(store, parent=parent, trained=made, alpha=0.7)
        assert 0.04 < share_changed(store, parent, between) <= 0.0501


def share_changed(store, parent, child) -> float:
    """Of all numbers in two checkpoints of one shape."""
    (name,) = (path.name for path in store.path(child).glob("*.safetensors"))
    before, after = (load_file(store.path(digest) / name) for digest in (parent, child))
    changed = sum(int((before[key] != after[key]).sum()) for key in after)
    return changed / sum(tensor.numel() for tensor in after.values())
