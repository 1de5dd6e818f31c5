"""Outcomes whose behaviour was logged: the TOPR term against loops over the formula."""

import math
from dataclasses import replace

import pytest
import torch

from deploy.engines.sampling import tempered_logprobs
from tacit.contracts import InlineInteraction, Outcome, SamplingParameters
from tacit.metrics import MetricName
from tacit.policies import load_policy
from tests import builders as build
from tests.trainer.builders import settings, train
from tests.trainer.scored import Models, gradient_of, loss_of, make_models, tokens
from trainer.behaviour import Behaviour
from trainer.examples import Example, ExampleKind
from trainer.losses import nucleus_log_mass, topr_loss, topr_tapers
from trainer.stats import Stat

GOOD, BAD = ExampleKind.DESIRABLE, ExampleKind.UNDESIRABLE


@pytest.fixture
def models(store):
    return make_models(store)


def sampled(kind, prompt, completion, *, by, temperature=1.0, top_p=1.0, weight=1.0) -> Example:
    """An example with the log-probabilities that serving ``by`` would have logged."""
    with torch.no_grad():
        rows = tokens(by, prompt, completion)
    logged = [
        float(tempered_logprobs(row, temperature=temperature, top_p=top_p)[token])
        for row, token in zip(rows, completion, strict=True)
    ]
    return Example(
        kind,
        prompt,
        completion,
        weight=weight,
        behaviour=Behaviour(tuple(logged), temperature, top_p),
    )


def examples(by, **how) -> list[Example]:
    return [
        sampled(GOOD, (3, 4), (40, 41), by=by, weight=0.5, **how),
        sampled(BAD, (5, 6, 7), (42,), by=by, **how),
        sampled(BAD, (8,), (43, 44, 45), by=by, weight=0.25, **how),
        sampled(GOOD, (9, 10), (46, 47), by=by, **how),
    ]


@torch.no_grad()
@pytest.mark.parametrize("temperature", [1.0, 0.5, 1.7])
def test_topr_equals_the_formula(models, temperature):
    step = examples(models.reference, temperature=temperature)
    _, sums = loss_of(models, step)
    expected, tapers = 0.0, []
    for example in step:
        rows = tokens(models.policy, example.prompt, example.completion)
        policy = sum(
            float((row / temperature).log_softmax(-1)[token])
            for row, token in zip(rows, example.completion, strict=True)
        )
        ratio = math.exp(policy - sum(example.behaviour.logprobs))
        tapers.append(example.weight * (1.0 if example.kind is GOOD else min(1.0, ratio)))
        bad = ratio if ratio < 1 else 1 + math.log(ratio)
        loss = -policy if example.kind is GOOD else bad
        expected += example.weight * loss / len(example.completion)
    assert any(0 < taper < 0.9 for taper in tapers[1:3])  # the ratio matters here
    assert float(sums[Stat.TOPR]) == pytest.approx(expected, rel=1e-5)
    assert float(sums[Stat.TAPER]) == pytest.approx(sum(tapers), rel=1e-5)
    assert float(sums[Stat.KTO]) == float(sums[Stat.KTO_WEIGHT]) == 0


@torch.no_grad()
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"temperature": 0.6},
        {"top_p": 0.8},
        {"temperature": 1.3, "top_p": 0.5},
    ],
)
def test_answers_of_the_policy_itself_are_not_tapered(models, how):
    # Only tokens of the nucleus can have been sampled: the likeliest one is always among them.
    own = Models(models.reference, models.reference, models.tokenizer)
    prompts = [(3, 4), (5, 6, 7), (8,)]
    step = [
        sampled(BAD, prompt, greedy(own.policy, prompt), by=own.policy, **how) for prompt in prompts
    ]
    _, sums = loss_of(own, step)
    assert float(sums[Stat.TAPER]) == pytest.approx(3, rel=1e-4)


def greedy(model, prompt) -> tuple[int, ...]:
    first = int(tokens(model, prompt, (0,))[0].argmax())
    return first, int(tokens(model, (*prompt, first), (0,))[0].argmax())


@torch.no_grad()
def test_the_nucleus_is_the_smallest_set_that_holds_its_share():
    table = torch.tensor([[0.15, 0.5, 0.05, 0.3]] * 4).log()
    mass = nucleus_log_mass(table, torch.tensor([0.1, 0.45, 0.6, 0.99])).exp()
    assert mass.tolist() == pytest.approx([0.5, 0.5, 0.8, 1.0])


def test_a_good_answer_is_plain_likelihood_however_it_was_sampled(models):
    near = sampled(GOOD, (3, 4), (40, 41), by=models.policy)
    far = replace(near, behaviour=Behaviour((-30.0, -0.001)))
    likely = Example(ExampleKind.CHOSEN, near.prompt, near.completion)
    expected = gradient_of(models, [likely])
    for example in (near, far):
        assert torch.allclose(gradient_of(models, [example]), expected, rtol=1e-4, atol=1e-7)


def test_a_bad_answer_pushes_less_the_further_it_is_unlearned(models):
    bad = sampled(BAD, (3, 4), (40, 41), by=models.policy)
    whole = gradient_of(models, [bad])
    likely = Example(ExampleKind.CHOSEN, bad.prompt, bad.completion)
    assert torch.allclose(whole, -gradient_of(models, [likely]), rtol=1e-4, atol=1e-7)
    first, second = bad.behaviour.logprobs
    # Twice as likely when it was sampled as it is now: half the push.
    unlearned = replace(bad, behaviour=Behaviour((first + math.log(2), second)))
    assert torch.allclose(gradient_of(models, [unlearned]), whole / 2, rtol=1e-4, atol=1e-7)
    learned = replace(bad, behaviour=Behaviour((first - 5, second)))
    assert torch.equal(gradient_of(models, [learned]), whole)


@pytest.mark.parametrize("log_ratio", [-3.0, -0.1, 0.0, 0.1, 3.0, 50.0])
def test_the_gradient_is_that_of_the_paper(log_ratio):
    logprobs = torch.tensor([-60.0, -60.0], requires_grad=True)
    ratios, positive = logprobs + 60.0 + log_ratio, torch.tensor([True, False])
    losses = topr_loss(logprobs, log_ratios=ratios, positive=positive, lengths=torch.tensor([2, 4]))
    losses.sum().backward()
    tapers = topr_tapers(ratios, positive=positive)
    assert tapers.tolist() == pytest.approx([1, min(1.0, math.exp(log_ratio))])
    assert logprobs.grad.tolist() == pytest.approx([-1 / 2, float(tapers[1]) / 4])


def test_the_strangest_log_gives_a_finite_loss():
    ratios, positive = torch.tensor([1e30, -1e30]), torch.zeros(2, dtype=torch.bool)
    losses = topr_loss(
        torch.tensor([-1.0, -1e30]),
        log_ratios=ratios,
        positive=positive,
        lengths=torch.tensor([1, 1]),
    )
    assert torch.isfinite(losses).all()
    assert topr_tapers(ratios, positive=positive).tolist() == [1, 0]


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_served_answer_is_learned_off_policy_and_the_same_every_time(store):
    parent = build.tiny_checkpoint(store)
    prompt = build.user("where is my order")
    (answer,) = load_policy(store, parent).generate([prompt], max_new_tokens=6)
    said = InlineInteraction(
        prompt=prompt,
        completion=answer.text,
        completion_ids=answer.token_ids,
        logprobs=answer.logprobs,
        sampling=SamplingParameters(),
    )
    failed = build.screened(feedback=Outcome(metric="resolved", value=False))
    events = [failed.model_copy(update={"interaction": said})]
    chosen = settings(num_epochs=20, learning_rate=1e-2)
    runs = [train(store, parent, events, settings=chosen) for _ in range(2)]
    assert runs[0][0] == runs[1][0]
    metrics = [step.metrics for step in runs[0][1]]
    # The parent sampled it, so it counts in full until it is unlearned.
    assert metrics[0][MetricName.TOPR_TAPER] == pytest.approx(1, rel=1e-3)
    assert metrics[-1][MetricName.TOPR_TAPER] < 0.5
    assert MetricName.LOSS_KTO not in metrics[0]
