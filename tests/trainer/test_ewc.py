"""The penalty against its formula, its Fisher information against a slow one, and what it does."""

import pytest
import torch

from tests.trainer.learners import flat_weights, open_whole, restrained, side_by_side
from trainer.collective import Collective
from trainer.ewc import ElasticPenalty
from trainer.fisher import fisher_diagonal
from trainer.scoring import CompletionScorer


def test_the_penalty_and_its_gradient_equal_the_formula():
    anchor, fisher = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([4.0, 0.0, 0.25])
    values = torch.tensor([1.5, 3.0, -1.5])
    gradient = torch.tensor([0.1, 0.2, 0.3])
    penalty = ElasticPenalty(anchor, fisher, weight=10.0).add_gradient(values, gradient)
    assert penalty == pytest.approx((4 * 0.5**2 + 0.25 * 2**2) / 2)
    assert gradient.tolist() == pytest.approx([0.1 + 10 * 4 * 0.5, 0.2, 0.3 - 10 * 0.25 * 2])


def test_the_minimum_of_two_quadratics_is_reached():
    # a/2 (x - t)^2 + lambda/2 F (x - s)^2 is least at (a t + lambda F s) / (a + lambda F).
    a, target, start = torch.tensor([1.0, 2.0]), torch.tensor([3.0, -1.0]), torch.zeros(2)
    fisher = torch.tensor([0.5, 4.0])
    elastic = ElasticPenalty(start, fisher, weight=2.0)
    x = start.clone()
    for _ in range(500):
        gradient = a * (x - target)
        elastic.add_gradient(x, gradient)
        x -= 0.05 * gradient
    assert torch.allclose(x, a * target / (a + 2 * fisher), atol=1e-5)


def test_the_anchor_stays_when_the_weights_move():
    values = torch.zeros(2)
    elastic = ElasticPenalty(values, torch.ones(2), weight=1.0)
    values += 1
    assert elastic.add_gradient(values, torch.zeros(2)) == pytest.approx(1.0)


def test_the_fisher_information_equals_a_slow_one(store):
    policy = open_whole(store)
    flat, replay = flat_weights(policy, 3)
    found = fisher_diagonal(
        CompletionScorer(policy.model), replay, weights=flat.values, group=Collective()
    )
    assert not flat.gradient.any()
    expected = torch.zeros_like(found)
    for example in replay:
        ids = torch.tensor([[*example.prompt, *example.completion]])
        table = policy.model(input_ids=ids).logits[0].log_softmax(-1)
        first = len(example.prompt) - 1
        said = sum(table[first + i, token] for i, token in enumerate(example.completion))
        gradients = torch.autograd.grad(said, policy.trainable)
        expected += torch.cat([g.reshape(-1) for g in gradients]) ** 2 / len(replay)
    assert found.max() > 1e-4
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-7)


def test_workers_share_the_fisher_information(store):
    policies = [open_whole(store) for _ in range(3)]
    _, replay = flat_weights(open_whole(store), 5)

    def on(group: Collective) -> torch.Tensor:
        policy = policies.pop()
        flat, _ = flat_weights(policy, 0)
        return fisher_diagonal(
            CompletionScorer(policy.model), replay, weights=flat.values, group=group
        )

    first, second = side_by_side(on)
    alone = on(Collective())
    assert torch.equal(first, second)
    assert torch.allclose(first, alone, rtol=1e-4, atol=1e-9)


def test_much_replay_is_sampled_evenly(store, monkeypatch):
    monkeypatch.setattr("trainer.fisher.MAX_EXAMPLES", 4)
    policy = open_whole(store)
    flat, (example,) = flat_weights(policy, 1)
    scorer = CompletionScorer(policy.model)
    seen = []
    scorer.hidden, hidden = lambda s: (seen.append(s), hidden(s))[1], scorer.hidden
    fisher_diagonal(scorer, [example] * 10, weights=flat.values, group=Collective())
    assert len(seen) == 4


def test_weights_that_replay_hangs_on_move_less(store):
    free, _ = restrained(open_whole(store), learning_rate=1e-3)
    held, steps = restrained(open_whole(store), learning_rate=1e-3, ewc={"weight": 1e4})
    policy = open_whole(store)
    flat, replay = flat_weights(policy, 4)
    fisher = fisher_diagonal(
        CompletionScorer(policy.model), replay, weights=flat.values, group=Collective()
    )
    order = fisher.argsort()
    tenth = len(order) // 10
    low, high = order[:tenth], order[-tenth:]
    kept_high = held.moved[high].mean() / free.moved[high].mean()
    kept_low = held.moved[low].mean() / free.moved[low].mean()
    assert kept_high < 0.75 * kept_low
    assert kept_low > 0.9
    assert fisher @ held.moved**2 < 0.2 * (fisher @ free.moved**2)
    assert steps[0].metrics["train/loss_ewc"] == 0
    assert steps[-1].metrics["train/loss_ewc"] > 0


def test_the_loss_that_is_logged_holds_the_penalty(store):
    _, steps = restrained(open_whole(store), ewc={"weight": 100.0}, num_epochs=3)
    _, plain = restrained(open_whole(store), num_epochs=3)
    assert "train/loss_ewc" not in plain[-1].metrics
    assert steps[0].metrics["train/loss"] == plain[0].metrics["train/loss"]
    last = steps[-1].metrics
    terms = last["train/loss"] - 100 * last["train/loss_ewc"]
    assert 0 < terms < last["train/loss"]


def test_without_replay_nothing_is_protected_and_that_is_said(store, caplog):
    _, steps = restrained(open_whole(store), ewc={"weight": 1.0}, replay=0, num_epochs=1)
    assert "no replay to protect" in caplog.text
    assert "train/loss_ewc" not in steps[0].metrics
