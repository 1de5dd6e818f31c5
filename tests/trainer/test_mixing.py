"""What holds for any mix of examples in a step, however one-sided."""

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st

from tacit.checkpoints import CheckpointStore
from tacit.metrics import MetricName
from tests.trainer.builders import settings
from tests.trainer.learners import side_by_side
from tests.trainer.scored import gradient_of, loss_of, make_models
from trainer.behaviour import Behaviour
from trainer.checkpoint import OpenPolicy
from trainer.collective import Collective
from trainer.examples import JUDGED, MIN_WEIGHT, Example, ExampleKind
from trainer.optimize import Optimization

few = effort(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return make_models(CheckpointStore(tmp_path_factory.mktemp("store")))


def ids(at_most: int):
    return st.lists(st.integers(5, 250), min_size=1, max_size=at_most).map(tuple)


@st.composite
def an_example(draw) -> Example:
    kind = draw(st.sampled_from(list(ExampleKind)))
    example = Example(
        kind,
        prompt=draw(ids(6)),
        completion=draw(ids(4)),
        rejected=draw(ids(4)) if kind is ExampleKind.PAIR else (),
        weight=draw(st.floats(MIN_WEIGHT, 1)),
        teacher_prompt=draw(ids(8)) if kind is ExampleKind.CRITICISED else (),
    )
    if kind in JUDGED and draw(st.booleans()):
        return replace(example, behaviour=draw(a_behaviour(len(example.completion))))
    return example


def a_behaviour(length: int):
    return st.builds(
        Behaviour,
        st.tuples(*[st.floats(-200, 0)] * length),
        st.floats(0.1, 10),
        st.floats(0.01, 1),
    )


mixes = st.lists(an_example(), min_size=1, max_size=8)


def close(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Equal but for the rounding of sums in another order."""
    return torch.allclose(left, right, rtol=1e-3, atol=1e-5 * max(1.0, float(right.abs().max())))


@few
@given(mixes)
def test_any_mix_has_a_finite_loss_and_gradient(models, step):
    loss, sums = loss_of(models, step)
    assert torch.isfinite(loss)
    assert torch.isfinite(sums).all()
    assert torch.isfinite(gradient_of(models, step)).all()


@few
@given(mixes, st.randoms(use_true_random=False))
def test_the_order_within_a_step_does_not_matter(models, step, chance):
    shuffled = list(step)
    chance.shuffle(shuffled)
    assert close(loss_of(models, shuffled)[1], loss_of(models, step)[1])
    assert close(gradient_of(models, shuffled), gradient_of(models, step))


@few
@given(mixes)
def test_half_the_weight_twice_is_the_weight_once(models, step):
    halves = [replace(example, weight=example.weight / 2) for example in step] * 2
    loss, _ = loss_of(models, step)
    assert float(loss_of(models, halves)[0]) == pytest.approx(float(loss), rel=1e-4, abs=1e-6)
    assert close(gradient_of(models, halves), gradient_of(models, step))


@few
@given(mixes)
def test_small_pieces_sum_up_to_the_whole(models, step):
    whole = first_step(models, step)
    assert first_step(models, step, micro_batch_tokens=1) == pytest.approx(
        whole, rel=1e-3, abs=1e-4
    )


@few
@given(mixes)
def test_two_workers_are_one(models, step):
    found = side_by_side(lambda group: first_step(models, step, group=group))
    assert found[0] == found[1]
    assert found[0] == pytest.approx(first_step(models, step), rel=1e-3, abs=1e-4)


def opened(models) -> OpenPolicy:
    model = copy.deepcopy(models.reference).requires_grad_(True)
    return OpenPolicy(model=model, tokenizer=models.tokenizer, base=None)


def first_step(models, step, *, group=None, **fields) -> dict[str, float]:
    """Metrics of a step over ``step`` of a policy that has moved away from its reference."""
    policy, chosen = opened(models), settings(batch_size=64, num_epochs=1, **fields)
    optimization = Optimization(policy, step, settings=chosen, group=group or Collective())
    with torch.no_grad():
        for own, moved in zip(policy.trainable, models.policy.parameters(), strict=True):
            own.copy_(moved)
    (only,) = optimization.run()
    changing = {MetricName.TOKENS_PER_SECOND.value}
    return {name: value for name, value in only.metrics.items() if name not in changing}


ALONE = {
    "correction": Example(ExampleKind.PAIR, (3, 4), (40, 41), rejected=(42,)),
    "likelihood": Example(ExampleKind.CHOSEN, (3, 4), (40, 41)),
    "praise": Example(ExampleKind.DESIRABLE, (3, 4), (40, 41)),
    "blame": Example(ExampleKind.UNDESIRABLE, (3, 4), (40, 41)),
    "sampled praise": Example(
        ExampleKind.DESIRABLE, (3, 4), (40, 41), behaviour=Behaviour((-5.0, -5.0))
    ),
    "sampled blame": Example(
        ExampleKind.UNDESIRABLE, (3, 4), (40, 41), behaviour=Behaviour((-5.0, -5.0))
    ),
    "critique": Example(ExampleKind.CRITICISED, (3, 4), (40, 41), teacher_prompt=(3, 9, 4)),
}


def trained(models, examples, **fields):
    policy = opened(models)
    chosen = settings(batch_size=4, **{"num_epochs": 30, "learning_rate": 3e-3, **fields})
    steps = list(Optimization(policy, examples, settings=chosen, group=Collective()).run())
    weights = torch.cat([p.detach().reshape(-1) for p in policy.trainable])
    return [step.metrics for step in steps], weights


@pytest.mark.parametrize("name", list(ALONE))
@pytest.mark.parametrize("weight", [1.0, MIN_WEIGHT])
def test_one_example_alone_trains(models, name, weight):
    metrics, weights = trained(models, [replace(ALONE[name], weight=weight)])
    assert metrics[-1][MetricName.LOSS] < 0.99 * metrics[0][MetricName.LOSS]
    assert torch.isfinite(weights).all()


def test_bad_answers_alone_are_unlearned_and_then_left_alone(models):
    bad = [replace(ALONE["sampled blame"], prompt=(3, i)) for i in range(4)]
    metrics, weights = trained(models, bad, num_epochs=150, learning_rate=1e-2)
    tapers = [step[MetricName.TOPR_TAPER] for step in metrics]
    assert tapers[-1] < 0.01 * tapers[0]
    # Plain REINFORCE would push for ever.
    assert metrics[-1][MetricName.GRAD_NORM] < 0.05 * metrics[0][MetricName.GRAD_NORM]
    assert torch.isfinite(weights).all()


def test_the_same_mix_gives_the_same_bits(models):
    mix = list(ALONE.values())
    first, second = (trained(models, mix, num_epochs=2)[1] for _ in range(2))
    assert torch.equal(first, second)
