"""Gradient checkpointing: less is kept, and not a bit of the outcome changes."""

import pytest
import torch

from tacit.errors import ConfigError
from tests import builders as build
from tests.trainer.builders import mixed_events, replay_examples, settings, train
from tests.trainer.learners import open_whole
from trainer.recompute import recomputed
from trainer.scoring import CompletionScorer
from trainer.sequences import collate
from trainer.session import TrainingSession

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

EVENTS, REPLAY = mixed_events(12), replay_examples(2)
SEQUENCES = collate([((1, 2, 3), (4, 5)), ((6,), (7, 8, 9))], pad_id=0)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("full", [False, True])
def test_the_same_bytes_with_and_without(store, precision, full):
    parent, warm = build.tiny_checkpoint(store), TrainingSession(store)
    digests = [
        train(
            store,
            parent,
            EVENTS,
            REPLAY,
            settings=settings(
                precision=precision, full_fine_tuning=full, gradient_checkpointing=chosen
            ),
            session=warm,
        )[0]
        for chosen in ("off", "on", "off")
    ]
    assert len(set(digests)) == 1


@pytest.mark.parametrize("bf16", [False, True])
def test_less_is_kept_for_the_backward_pass(store, bf16):
    policy = open_whole(store)
    scorer = CompletionScorer(policy.model, bf16=bf16)

    def kept_bytes() -> int:
        sizes = []

        def keep(tensor):
            sizes.append(tensor.nbytes)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            scorer.hidden(SEQUENCES).sum().backward()
        return sum(sizes)

    without = kept_bytes()
    with recomputed(policy.model, bf16=bf16):
        assert kept_bytes() < 0.2 * without
    assert kept_bytes() == without


def test_a_failure_leaves_the_layers_as_they_were(store):
    model = open_whole(store).model
    with pytest.raises(ZeroDivisionError), recomputed(model, bf16=False):
        raise ZeroDivisionError
    assert not any("forward" in module.__dict__ for module in model.modules())


def test_a_model_without_such_layers_is_refused():
    with (
        pytest.raises(ConfigError, match="Linear"),
        recomputed(torch.nn.Linear(2, 2), bf16=False),
    ):
        pass


def test_trl_computes_again_too(store):
    parent = build.tiny_checkpoint(store)
    plain, again = (
        train(
            store,
            parent,
            EVENTS,
            settings=settings(method="dpo", num_epochs=1, gradient_checkpointing=chosen),
        )[1]
        for chosen in ("off", "on")
    )
    losses = [[step.metrics["train/loss"] for step in steps] for steps in (plain, again)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
