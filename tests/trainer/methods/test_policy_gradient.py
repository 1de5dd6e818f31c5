"""GRPO and RLOO on a bandit with two arms, and what they refuse."""

import pytest
import torch

from tacit.contracts import Correction, Outcome
from tacit.errors import ConfigError, TrainingError
from tacit.metrics import MetricName
from tests import builders as build
from tests.trainer.builders import train
from tests.trainer.methods import builders
from tests.trainer.methods.builders import LEFT, RIGHT, asked, inputs, next_token, settings
from trainer.methods.policy_gradient import build as make
from trainer.methods.prompts import build_prompts, whole_groups
from trainer.methods.reward import KNOWN_ANSWER
from trainer.methods.streaming import stream

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

EVENTS = asked(4)
HERE = "tests.trainer.methods.builders"
EMBEDDINGS = {"rank": 4, "alpha": 8, "train_embeddings": True}


def pulls_left(store, digest) -> float:
    """Probability of an answer that begins with an even token, over all prompts."""
    tables = [next_token(store, digest, f"where is order {i}") for i in range(4)]
    return float(torch.stack(tables)[:, ::2].sum(-1).mean())


@pytest.mark.parametrize("method", ["grpo", "rloo"])
@pytest.mark.parametrize("full", [False, True])
def test_the_arm_that_pays_is_pulled_more(store, method, full):
    parent = build.tiny_checkpoint(store)
    after = {}
    for arm in (LEFT, RIGHT):
        chosen = settings(
            method,
            full_fine_tuning=full,
            lora=EMBEDDINGS,
            learning_rate=3e-2,
            batch_size=32,
            num_epochs=12,
            reward={"function": arm},
            sampling={"num_generations": 8},
        )
        after[arm], steps = train(store, parent, EVENTS, settings=chosen)
        assert steps[-1].step == steps[-1].num_steps == 12
        rewards = [step.metrics[MetricName.REWARD] for step in steps]
        assert sum(rewards[-4:]) > sum(rewards[:4]) + 0.2
        # The reference is the parent, which the first step's policy still is.
        assert steps[0].metrics[MetricName.KL_REFERENCE] == pytest.approx(0, abs=1e-5)
        assert steps[-1].metrics[MetricName.KL_REFERENCE] > 0.01
    before = pulls_left(store, parent)
    assert pulls_left(store, after[RIGHT]) + 0.1 < before < pulls_left(store, after[LEFT]) - 0.1


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_advantages_are_those_of_the_paper(store, tmp_path, method):
    chosen = settings(method, batch_size=8, num_epochs=1, reward={"function": LEFT})
    trainer = make(inputs(store, asked(2), chosen, tmp_path))
    list(stream(trainer))
    rewards = torch.tensor(list(trainer._logs["rewards"][LEFT])).view(2, 4)
    advantages = torch.tensor(list(trainer._logs["advantages"])).view(2, 4)
    assert advantages.abs().max() > 0.1
    assert torch.allclose(advantages.sum(-1), torch.zeros(2), atol=1e-4)
    mean = rewards.mean(-1, keepdim=True)
    if method == "grpo":
        expected = (rewards - mean) / (rewards.std(-1, keepdim=True) + 1e-4)
    else:
        expected = (rewards - mean) * 4 / 3  # less the mean of the other three
    assert torch.allclose(advantages, expected, atol=1e-4)


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_the_reference_is_the_parent_with_its_adapter(store, method):
    base = build.tiny_checkpoint(store)
    sft = settings("sft", lora=EMBEDDINGS, num_epochs=8, learning_rate=2e-2)
    parent, _ = train(store, base, EVENTS, settings=sft)
    chosen = settings(method, reward={"function": LEFT}, batch_size=16)
    child, steps = train(store, parent, EVENTS, settings=chosen)
    assert store.manifest(child).base == base
    assert steps[0].metrics[MetricName.KL_REFERENCE] == pytest.approx(0, abs=1e-5)


def test_trained_embeddings_count_in_the_probabilities(store, tmp_path):
    base = build.tiny_checkpoint(store)
    sft = settings("sft", lora=EMBEDDINGS, num_epochs=8, learning_rate=2e-2)
    parent, _ = train(store, base, EVENTS, settings=sft)
    chosen = settings("grpo", reward={"function": LEFT})
    trainer = make(inputs(store, EVENTS, chosen, tmp_path, parent=parent))
    ids = torch.tensor([[5, 6, 7, 40, 41]])
    mask = torch.ones_like(ids)
    for model in (trainer.model, trainer.ref_model):
        with torch.no_grad():
            theirs, entropies, _ = trainer._get_per_token_logps_and_entropies(model, ids, mask, 2)
            table = model(input_ids=ids).logits[0, 2:4].log_softmax(-1)
        assert torch.allclose(theirs[0], table[[0, 1], [40, 41]], atol=1e-5)
        assert torch.allclose(entropies[0], -(table.exp() * table).sum(-1), atol=1e-4)


@pytest.mark.parametrize(("count", "steps", "per_step"), [(1, 1, 1), (4, 1, 4), (5, 2, 3)])
def test_every_prompt_is_asked_however_they_divide(store, tmp_path, count, steps, per_step):
    prompts = build_prompts(asked(count))
    rows, together = whole_groups(prompts, num_prompts=4)
    assert (len(rows), together) == (steps * per_step, per_step)
    assert set(rows) == set(range(count))
    chosen = settings("grpo", batch_size=16, num_epochs=1, reward={"function": LEFT})
    trainer = make(inputs(store, asked(count), chosen, tmp_path))
    given = []
    trainer.reward_funcs[0]._function = lambda event_key, completion_ids, **_: (
        given.extend(event_key) or builders.left(completion_ids)
    )
    assert len(list(stream(trainer))) == steps
    assert set(given) == {f"helpdesk/e-{i}" for i in range(count)}


def test_what_is_known_of_a_prompt_reaches_the_reward(store, tmp_path):
    events = [
        build.screened("e-0", feedback=Correction(completion="shipping")),
        build.screened("e-1", feedback=Outcome(metric="resolved", value=0.5)),
        build.screened("e-2", feedback=Outcome(metric="resolved", value=False)),
    ]
    chosen = settings("grpo", batch_size=12, num_epochs=1, reward={"function": LEFT})
    trainer = make(inputs(store, events, chosen, tmp_path))
    seen = {}

    def judge(completions, completion_ids, prompts, **columns):
        names = ("known_answer", "outcome", "served", "critique", "tags")
        for key, *values in zip(columns["event_key"], *(columns[n] for n in names), strict=True):
            seen[key] = tuple(values)
        assert prompts[0] == [{"role": "user", "content": "where is my order"}]
        assert all(said[0]["role"] == "assistant" for said in completions)
        return builders.left(completion_ids)

    trainer.reward_funcs[0]._function = judge
    list(stream(trainer))
    assert seen == {
        "helpdesk/e-0": ("shipping", None, "billing", None, {}),
        "helpdesk/e-1": ("billing", 0.5, "billing", None, {}),
        "helpdesk/e-2": (None, -1.0, "billing", None, {}),
    }


def test_a_long_prompt_is_cut_on_the_left(store, tmp_path):
    event = build.screened(prompt="again " * 50 + "where is my order")
    chosen = settings("grpo", max_length=40, reward={"function": LEFT})
    trainer = make(inputs(store, [event], chosen, tmp_path))
    ((ids,), *_) = trainer._tokenize_prompts([trainer.train_dataset[0]["prompt"]])
    assert len(ids) == 38
    assert trainer.processing_class.decode(ids).endswith("where is my order<|assistant|>")


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (f"{HERE}:flat", TrainingError, "same reward for all answers"),
        (f"{HERE}:broken", ConfigError, "ZeroDivisionError: by zero"),
        (f"{HERE}:too_few", ConfigError, "16 rewards .* one per completion; got 1"),
        (f"{HERE}:nothing", ConfigError, "importable.*nothing"),
        ("no.such.module:left", ConfigError, "importable.*No module named 'no'"),
        (f"{HERE}:HERE", ConfigError, "importable.*HERE"),
        (KNOWN_ANSWER, TrainingError, "grpo needs corrections or good outcomes"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(store, function, error, message):
    parent = build.tiny_checkpoint(store)
    before = set(store.root.iterdir())
    events = asked(4, Outcome(metric="resolved", value=False))
    chosen = settings("grpo", batch_size=16, reward={"function": function})
    with pytest.raises(error, match=message):
        train(store, parent, events, settings=chosen)
    assert set(store.root.iterdir()) == before
