"""Whole jobs in this process: what comes out, and that it is the same every time."""

import json
import math

import pytest
import torch

from tacit.checkpoints import CheckpointStore
from tacit.config import LoraSettings
from tacit.contracts import Correction
from tacit.errors import NotFoundError, TrainingError
from tacit.metrics import MetricName
from tacit.policies import completion_ids, load_policy, prompt_ids
from tests import builders as build
from tests.trainer.builders import mixed_events, replay_examples, settings, train
from trainer.session import TrainingSession

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

EVENTS = [
    build.screened(
        f"e-{i}", prompt=f"where is order {i}", feedback=Correction(completion="shipping")
    )
    for i in range(16)
]


def chosen_logprob(store, digest) -> float:
    """Mean log-probability of "shipping" over the prompts of EVENTS."""
    policy = load_policy(store, digest)
    total = 0.0
    for event in EVENTS:
        asked = prompt_ids(policy.tokenizer, event.interaction.prompt)
        answer = completion_ids(policy.tokenizer, "shipping")
        with torch.no_grad():
            table = policy.model(input_ids=torch.tensor([asked + answer])).logits[0].log_softmax(-1)
        total += sum(float(table[len(asked) - 1 + i, t]) for i, t in enumerate(answer))
    return total / len(EVENTS)


def first_words(store, digest) -> list[bool]:
    """Whether each answer begins as the corrections say.

    The tiny policy's frozen, random head cannot also learn where to stop.
    """
    prompts = [event.interaction.prompt for event in EVENTS]
    answers = load_policy(store, digest).generate(prompts, max_new_tokens=4)
    return [answer.text.startswith("shipping") for answer in answers]


@pytest.mark.parametrize("full", [False, True])
def test_a_corrected_text_is_learned(store, full):
    parent = build.tiny_checkpoint(store)
    chosen = settings(full_fine_tuning=full, num_epochs=10, learning_rate=1e-2)
    digest, steps = train(store, parent, EVENTS, settings=chosen)
    assert len(steps) == steps[0].num_steps == 20
    assert not any(first_words(store, parent))
    assert all(first_words(store, digest))


def test_the_same_job_gives_the_same_digest_anywhere(store, tmp_path):
    elsewhere = CheckpointStore(tmp_path / "another" / "place")
    parent = build.tiny_checkpoint(store)
    assert build.tiny_checkpoint(elsewhere) == parent
    warm = TrainingSession(store)
    digests = {
        train(store, parent, mixed_events(), replay_examples(), settings=settings(), session=s)[0]
        for s in (warm, warm, TrainingSession(store))
    }
    digests.add(train(elsewhere, parent, mixed_events(), replay_examples(), settings=settings())[0])
    assert len(digests) == 1


def test_embeddings_that_learn_leave_the_base_as_it_was(store):
    parent = build.tiny_checkpoint(store)
    lora = LoraSettings(rank=4, train_embeddings=True)
    chosen = settings(lora=lora, num_epochs=10, learning_rate=1e-2)
    warm = TrainingSession(store)
    runs = [train(store, parent, EVENTS, settings=chosen, session=warm)[0] for _ in range(2)]
    assert runs[0] == runs[1]
    frozen, _ = train(store, parent, EVENTS, settings=settings(num_epochs=10, learning_rate=1e-2))
    assert chosen_logprob(store, runs[0]) > chosen_logprob(store, frozen)
    # The next update goes on from the rows that learned.
    child, _ = train(store, runs[0], EVENTS, settings=chosen, session=warm)
    assert chosen_logprob(store, child) >= chosen_logprob(store, runs[0])


@pytest.mark.parametrize(
    "changed", [{"seed": 1}, {"learning_rate": 2e-3}, {"events": 11}, {"replay": 3}]
)
def test_another_job_gives_another_digest(store, changed):
    parent = build.tiny_checkpoint(store)
    plain, _ = train(store, parent, mixed_events(), replay_examples(), settings=settings())
    events = mixed_events(changed.pop("events", 12))
    replay = replay_examples(changed.pop("replay", 4))
    assert train(store, parent, events, replay, settings=settings(**changed))[0] != plain


def test_an_adapter_checkpoint_holds_no_trace_of_the_machine(store):
    parent = build.tiny_checkpoint(store)
    digest, _ = train(store, parent, mixed_events(), settings=settings())
    manifest = store.verify(digest)
    assert (manifest.kind, manifest.base) == ("adapter", parent)
    assert set(manifest.files) == {"adapter_config.json", "adapter_model.safetensors"}
    for path in store.path(digest).iterdir():
        assert str(store.root).encode() not in path.read_bytes()
    config = json.loads((store.path(digest) / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] is None


def test_a_full_checkpoint_carries_its_tokenizer(store):
    parent = build.tiny_checkpoint(store)
    digest, _ = train(store, parent, mixed_events(), settings=settings(full_fine_tuning=True))
    manifest = store.verify(digest)
    assert (manifest.kind, manifest.base) == ("full", None)
    before, after = store.manifest(parent).files, manifest.files
    assert before["tokenizer.json"] == after["tokenizer.json"]
    assert before["model.safetensors"] != after["model.safetensors"]
    assert str(store.root).encode() not in (store.path(digest) / "config.json").read_bytes()


def test_one_adapter_accumulates_over_cycles_on_one_base(store):
    parent = build.tiny_checkpoint(store)
    session = TrainingSession(store)
    first, _ = train(store, parent, EVENTS, settings=settings(), session=session)
    second, steps = train(store, first, EVENTS, settings=settings(), session=session)
    assert store.manifest(second).base == parent
    assert chosen_logprob(store, parent) < chosen_logprob(store, first)
    assert chosen_logprob(store, first) < chosen_logprob(store, second)
    # The reference is the first update's policy and not the bare base: both start out equal.
    assert steps[0].metrics[MetricName.LOSS_DPO] == pytest.approx(math.log(2), rel=1e-5)


def test_full_fine_tuning_goes_on_from_an_adapter(store):
    parent = build.tiny_checkpoint(store)
    adapter, _ = train(store, parent, EVENTS, settings=settings())
    full, steps = train(store, adapter, EVENTS, settings=settings(full_fine_tuning=True))
    assert store.manifest(full).kind == "full"
    assert chosen_logprob(store, adapter) < chosen_logprob(store, full)
    assert steps[0].metrics[MetricName.LOSS_DPO] == pytest.approx(math.log(2), rel=1e-5)


def test_a_failed_job_leaves_nothing_and_the_next_is_sound(store):
    parent = build.tiny_checkpoint(store)
    session = TrainingSession(store)
    before = set(store.root.iterdir())
    with pytest.raises(TrainingError, match="finite"):
        train(
            store,
            parent,
            mixed_events(),
            settings=settings(learning_rate=1e30, num_epochs=4),
            session=session,
        )
    assert set(store.root.iterdir()) == before
    after, _ = train(store, parent, mixed_events(), settings=settings(), session=session)
    assert after == train(store, parent, mixed_events(), settings=settings())[0]


def test_a_missing_parent_is_named(store):
    with pytest.raises(NotFoundError, match="sha256:"):
        train(store, build.digest("gone"), mixed_events(), settings=settings())


@pytest.mark.parametrize("method", ["sft", "dpo", "kto"])
@pytest.mark.parametrize("full", [False, True])
def test_trl_methods_raise_the_chosen_text_and_repeat_bit_by_bit(store, method, full):
    parent = build.tiny_checkpoint(store)
    chosen = settings(method=method, full_fine_tuning=full, num_epochs=4, learning_rate=3e-3)
    digest, steps = train(store, parent, EVENTS, replay_examples(2), settings=chosen)
    assert chosen_logprob(store, digest) > chosen_logprob(store, parent) + 0.5
    assert steps[-1].step == steps[-1].num_steps
    assert MetricName.LOSS in steps[-1].metrics
    assert train(store, parent, EVENTS, replay_examples(2), settings=chosen)[0] == digest


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_the_reference_of_a_trl_method_is_the_parent_with_its_adapter(store, method):
    parent = build.tiny_checkpoint(store)
    adapter, _ = train(store, parent, EVENTS, settings=settings(num_epochs=8))
    _, steps = train(store, adapter, EVENTS, settings=settings(method=method, nll_weight=0.0))
    expected = {"dpo": math.log(2), "kto": 0.5}[method]
    assert steps[0].metrics[MetricName.LOSS] == pytest.approx(expected, abs=1e-4)


def test_dpo_without_pairs_says_so(store):
    events = [event for event in mixed_events() if event.event.feedback.type == "outcome"]
    with pytest.raises(TrainingError, match="method=dpo"):
        train(store, build.tiny_checkpoint(store), events, settings=settings(method="dpo"))
