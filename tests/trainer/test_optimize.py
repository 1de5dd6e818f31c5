import copy
import math

import pytest
import torch

from tacit.errors import TrainingError
from tacit.metrics import MetricName
from tacit.policies import load_model, load_tokenizer
from tests import builders as build
from tests.trainer.builders import mixed_events, replay_examples, settings
from trainer.checkpoint import OpenPolicy
from trainer.collective import Collective
from trainer.examples import build_examples
from trainer.learning_rate import learning_rate
from trainer.optimize import Optimization
from trainer.weights import FlatParameters


@pytest.fixture
def policy(store):
    parent = build.tiny_checkpoint(store)
    model = load_model(store, parent).eval().requires_grad_(True)
    return OpenPolicy(model=model, tokenizer=load_tokenizer(store, parent), base=None)


def optimization(policy, **fields):
    examples = build_examples(policy.tokenizer, mixed_events(), replay_examples(), max_length=512)
    return Optimization(policy, examples, settings=settings(**fields), group=Collective())


def weights(policy) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in policy.trainable])


def test_flat_parameters_are_views_that_collect_gradients():
    layers = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))
    twin = copy.deepcopy(layers)
    flat = FlatParameters(list(layers.parameters()))
    for model in (layers, twin):
        for _ in range(2):  # gradients add up
            model(torch.ones(4, 3)).sum().backward()
    expected = torch.cat([p.grad.reshape(-1) for p in twin.parameters()])
    assert torch.equal(flat.gradient, expected)
    with torch.no_grad():
        flat.values.zero_()
    assert all(not p.any() for p in layers.parameters())


def test_the_rate_rises_and_falls():
    chosen = settings(learning_rate=1.0, warmup_share=0.1)
    rates = [learning_rate(step, num_steps=100, settings=chosen) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([0.1 * i for i in range(1, 11)])
    assert rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.001


@pytest.mark.parametrize("num_steps", [1, 2])
def test_the_shortest_updates_have_a_rate(num_steps):
    for step in range(1, num_steps + 1):
        assert learning_rate(step, num_steps=num_steps, settings=settings()) > 0


def test_small_pieces_give_the_gradient_of_the_whole(policy):
    whole = copy.deepcopy(policy)
    for _ in optimization(whole, batch_size=16).run():
        pass
    for _ in optimization(policy, batch_size=16, micro_batch_tokens=100).run():
        pass
    assert torch.allclose(weights(policy), weights(whole), atol=2e-5)


def test_the_first_step_measures_the_parent_itself(policy):
    first = next(optimization(policy, batch_size=16).run()).metrics
    assert first[MetricName.LOSS_DPO] == pytest.approx(math.log(2), rel=1e-5)
    assert first[MetricName.REWARD_MARGIN] == pytest.approx(0, abs=1e-5)
    assert first[MetricName.KL_REPLAY] == pytest.approx(0, abs=1e-6)
    assert first[MetricName.LOSS_KTO] == pytest.approx(0.5, abs=1e-5)


def test_kl_pulls_the_policy_back_to_its_parent(policy):
    def last_kl(kl_weight: float) -> float:
        steps = list(
            optimization(
                copy.deepcopy(policy), batch_size=16, kl_weight=kl_weight, num_epochs=6
            ).run()
        )
        return steps[-1].metrics[MetricName.KL_REPLAY]

    assert last_kl(100.0) < 0.5 * last_kl(0.0)


def test_the_loss_falls(policy):
    steps = list(optimization(policy, batch_size=16, num_epochs=8, learning_rate=1e-2).run())
    assert [step.step for step in steps] == list(range(1, 9))
    assert steps[-1].metrics[MetricName.LOSS] < 0.9 * steps[0].metrics[MetricName.LOSS]


@pytest.mark.parametrize(("name", "value"), [("loss", "nan"), ("gradient norm", "inf")])
def test_what_is_not_finite_stops_the_update(policy, name, value):
    chosen = optimization(policy, batch_size=16)
    if name == "loss":
        policy.model.model.norm.weight.data.fill_(math.nan)
    else:
        first = next(iter(policy.trainable))
        first.register_hook(lambda gradient: torch.full_like(gradient, math.inf))
    before = weights(policy)
    with pytest.raises(TrainingError, match=rf"a finite {name} at step 1 of 2; got {value}"):
        list(chosen.run())
    assert torch.equal(weights(policy).nan_to_num(), before.nan_to_num())
