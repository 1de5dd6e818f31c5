"""SDFT and SDPO on a tiny policy that can use what only its teacher reads."""

import pytest
import torch

from tacit.contracts import Correction, Critique, Message, Outcome
from tacit.errors import TrainingError
from tacit.metrics import MetricName
from tacit.policies import load_policy, prompt_ids
from tests import builders as build
from tests.trainer.builders import train
from tests.trainer.methods.builders import LEFT, inputs, log_likelihood, settings
from tests.trainer.methods.reader import HINT, INSTRUCTION, WORDS, question, reading_checkpoint
from tests.trainer.methods.reader import reasoned as reasons
from trainer.hindsight import DEMONSTRATION, with_hindsight, with_note
from trainer.losses import critique_loss
from trainer.methods.self_distillation import build as make
from trainer.methods.teacher_context import Hindsight

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

SHIPPING = Correction(completion="shipping")


def told(feedback, count=8):
    """Events about "billing", which the policy says to everything."""
    return [build.screened(f"e-{i}", prompt=question(i), feedback=feedback) for i in range(count)]


def says(store, digest, word):
    """Mean log-probability of ``word`` as the answer to what was learned from."""
    prompts = [build.user(question(i)) for i in range(8)]
    return log_likelihood(store, digest, [(prompt, word) for prompt in prompts])


def reasons_as_before(store, digest):
    """Mean log-probability of reasoned answers to other prompts: another skill."""
    pairs = []
    for number in range(100, 104):
        for word in WORDS:
            hinted = f"{INSTRUCTION} {HINT.replace('{answer}', word)}"
            pairs.append((with_note(build.user(question(number)), hinted), reasons(word)))
    return log_likelihood(store, digest, pairs)


@pytest.mark.parametrize("full", [False, True])
def test_sdft_learns_the_demonstrated_answer_and_forgets_less_than_sft(store, full):
    parent = reading_checkpoint(store)
    after = {}
    for method in ("sdft", "sft"):
        chosen = settings(
            method,
            full_fine_tuning=full,
            num_epochs=10,
            learning_rate=3e-3 if full else 2e-2,
            sampling={"max_new_tokens": 8},
        )
        after[method], steps = train(store, parent, told(SHIPPING), settings=chosen)
        assert len(steps) == 10
        assert steps[-1].metrics[MetricName.LOSS] < 0.2 * steps[0].metrics[MetricName.LOSS]
    assert says(store, parent, "shipping") < -1
    assert says(store, after["sdft"], "shipping") > -0.2
    before = reasons_as_before(store, parent)
    lost = {method: before - reasons_as_before(store, digest) for method, digest in after.items()}
    assert lost["sdft"] < 0.8 * lost["sft"]


@pytest.mark.parametrize("full", [False, True])
def test_sdpo_moves_to_what_the_critique_asks_for(store, full):
    parent = reading_checkpoint(store)
    chosen = settings(
        "sdpo",
        full_fine_tuning=full,
        num_epochs=3,
        learning_rate=3e-3 if full else 2e-2,
        sampling={"max_new_tokens": 4},
    )
    for asked_for, other in (WORDS, reversed(WORDS)):
        events = told(Critique(text=f"say {asked_for}"))
        digest, steps = train(store, parent, events, settings=chosen)
        assert says(store, digest, asked_for) > says(store, parent, asked_for)
        assert says(store, digest, asked_for) > says(store, digest, other) + 1
        assert steps[0].metrics[MetricName.TAUGHT_SHARE] == 1
        assert MetricName.REWARD not in steps[0].metrics  # nobody was asked for any


@pytest.mark.parametrize("method", ["sdft", "sdpo"])
def test_the_loss_is_the_papers_and_the_teacher_the_parent_with_its_adapter(
    store, tmp_path, method
):
    base = reading_checkpoint(store)
    feedback = {"sdft": SHIPPING, "sdpo": Critique(text="say shipping")}[method]
    events = told(feedback, 2)
    adapted, _ = train(store, base, told(SHIPPING, 2), settings=settings("sft", learning_rate=1e-2))
    trainer = make(inputs(store, events, settings(method), tmp_path, parent=adapted))
    with torch.no_grad():  # a student that is not its teacher
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:
                parameter += 0.05
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1  # set by training
    batch = trainer._prepare_training_batch([trainer.train_dataset[0]] * 4)
    loss = float(trainer.compute_loss(trainer.model, batch).detach())

    teacher = load_policy(store, adapted)
    prompt = build.user(question(0))
    read = {
        "sdft": with_note(prompt, DEMONSTRATION.format(text="shipping")),
        "sdpo": with_hindsight(prompt, "say shipping"),
    }[method]
    expected = 0.0
    for ids, mask in zip(batch["completion_ids"], batch["completion_mask"], strict=True):
        said = ids[mask.bool()].tolist()
        tables = []
        for model, messages in ((trainer.model, prompt), (teacher.model, read)):
            before = prompt_ids(teacher.tokenizer, messages)
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([before + said])).logits[0]
            tables.append(logits[len(before) - 1 : -1].log_softmax(-1))
        expected += float(critique_loss(*tables).mean()) / 4
    assert expected > 0.01
    assert loss == pytest.approx(expected, rel=1e-3)


def test_a_success_of_the_policys_own_is_what_the_teacher_reads(store, tmp_path):
    chosen = settings("sdpo", reward={"function": LEFT}, batch_size=4)
    trainer = make(inputs(store, told(Critique(text="say it"), 1), chosen, tmp_path))
    said = torch.tensor([[40, 0], [41, 0], [42, 0], [43, 0]])
    chat = [{"role": "user", "content": "where"}]
    context = Hindsight(trainer, success=1.0)
    built = context.build(
        {"completion_ids": said, "completion_mask": torch.ones_like(said)},
        [chat] * 4,
        torch.tensor([0.0, 1.0, 0.0, 0.5]),
        [None, None, "too short", None],
    )
    texts = trainer.processing_class.batch_decode(built["teacher_input_ids"])
    words = trainer.processing_class.batch_decode(said, skip_special_tokens=True)
    assert built["self_distillation_mask"].tolist() == [1, 0, 1, 1]  # none learns from itself
    assert [f"correct answer to this:\n\n{words[1]}" in text for text in texts] == [1, 0, 1, 1]
    assert ["too short" in text for text in texts] == [0, 0, 1, 0]
    assert context.last_metrics["self_distillation/reprompt_sample_fraction"] == 0.75


def test_sdpo_learns_from_successes_without_a_critique(store):
    parent = build.tiny_checkpoint(store)
    chosen = settings("sdpo", reward={"function": LEFT}, batch_size=16, num_epochs=1)
    events = told(Outcome(metric="resolved", value=False), 4)
    _, steps = train(store, parent, events, settings=chosen)
    assert 0 < steps[0].metrics[MetricName.REWARD] < 1
    assert 0 < steps[0].metrics[MetricName.TAUGHT_SHARE] <= 1
    assert steps[0].metrics[MetricName.LOSS] > 0


def test_a_prompt_that_ends_in_a_tools_answer_is_learned_from(store):
    parent = build.tiny_checkpoint(store)
    event = build.screened(feedback=SHIPPING)
    prompt = (*build.user("call it"), Message(role="assistant", content="42"))
    said = event.interaction.model_copy(update={"prompt": prompt})
    event = event.model_copy(update={"interaction": said})
    _, (step, *_) = train(store, parent, [event], settings=settings("sdft"))
    assert step.metrics[MetricName.LOSS] > 0


@pytest.mark.parametrize(
    ("method", "feedback", "fields", "message"),
    [
        ("sdft", Critique(text="say it"), {}, "sdft needs corrections, preferences"),
        ("sdpo", SHIPPING, {}, "sdpo needs critiques"),
        ("sdpo", SHIPPING, {"reward": {"function": LEFT, "success": 2}}, "with success"),
    ],
)
def test_a_batch_without_what_the_teacher_reads_is_refused(
    store, method, feedback, fields, message
):
    parent = build.tiny_checkpoint(store)
    before = set(store.root.iterdir())
    with pytest.raises(TrainingError, match=message):
        train(store, parent, told(feedback, 2), settings=settings(method, **fields))
    assert set(store.root.iterdir()) == before
