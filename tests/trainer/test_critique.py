"""Critiques: what the teacher reads, and the term against loops and against TRL's divergence."""

from dataclasses import replace

import pytest
import torch

from tacit.contracts import Critique, Message
from tacit.errors import TrainingError
from tacit.policies import completion_ids, load_tokenizer, prompt_ids
from tests import builders as build
from tests.trainer.scored import Models, divergence, gradient_of, loss_of, make_models, tokens
from trainer.examples import Example, ExampleKind, build_examples
from trainer.hindsight import with_hindsight
from trainer.losses import critique_loss
from trainer.stats import Stat

CRITICISED = [
    Example(ExampleKind.CRITICISED, (3, 4), (40, 41), teacher_prompt=(3, 4, 70, 71), weight=0.5),
    Example(ExampleKind.CRITICISED, (5, 6, 7), (42,), teacher_prompt=(72, 5, 6, 7)),
    Example(ExampleKind.CRITICISED, (8,), (43, 44, 45), teacher_prompt=(8, 73)),
]


@pytest.fixture
def models(store):
    return make_models(store)


@pytest.fixture
def tokenizer(store):
    return load_tokenizer(store, build.tiny_checkpoint(store))


def criticised(text="too short", **fields):
    return build.screened(completion="billing", feedback=Critique(text=text), **fields)


def test_the_critique_stands_in_the_last_user_message_and_the_answer_nowhere():
    before = Message(role="system", content="be brief")
    asked = with_hindsight((before, *build.user("where is it?")), "say {when} too\n")
    assert asked[0] == before
    assert [message.role for message in asked] == ["system", "user"]
    assert asked[1].content.startswith("where is it?\n\n")
    assert "\n\nsay {when} too\n\n" in asked[1].content


def test_after_another_role_the_critique_is_a_message_of_its_own():
    prompt = (*build.user("call it"), Message(role="tool", content="42"))
    asked = with_hindsight(prompt, "wrong unit")
    assert asked[:2] == prompt
    assert asked[2].role == "user"
    assert "wrong unit" in asked[2].content


def test_texts_of_the_greatest_length_meet():
    (asked,) = with_hindsight(build.user("a" * 65_536), "b" * 65_536)
    assert len(asked.content) > 131_072


def test_a_critique_becomes_an_answer_with_two_prompts(tokenizer):
    (example,) = build_examples(
        tokenizer, [criticised(weight=0.7)], [], max_length=512, critiques=True
    )
    prompt = build.user("where is my order")
    assert example.kind is ExampleKind.CRITICISED
    assert example.weight == 0.7
    assert list(example.prompt) == prompt_ids(tokenizer, prompt)
    assert list(example.completion) == completion_ids(tokenizer, "billing")
    assert list(example.teacher_prompt) == prompt_ids(
        tokenizer, with_hindsight(prompt, "too short")
    )
    assert example.num_tokens == len(example.prompt) + len(example.completion)
    assert example.num_taught_tokens == len(example.teacher_prompt) + len(example.completion)


def test_where_there_is_no_room_the_teacher_keeps_the_critique(tokenizer):
    event = criticised(prompt="where is my order " * 50)
    (example,) = build_examples(tokenizer, [event], [], max_length=300, critiques=True)
    whole = prompt_ids(tokenizer, with_hindsight(event.interaction.prompt, "too short"))
    assert example.num_taught_tokens == 300
    assert list(example.teacher_prompt) == whole[-(300 - len(example.completion)) :]


def test_only_those_who_ask_get_critiques(tokenizer):
    events = [criticised(), build.screened("e-2")]
    assert [e.kind for e in build_examples(tokenizer, events, [], max_length=512)] == [
        ExampleKind.PAIR
    ]
    with pytest.raises(TrainingError, match="training signal"):
        build_examples(tokenizer, events[:1], [], max_length=512)


@torch.no_grad()
def test_the_critique_term_equals_the_formula(models):
    loss, sums = loss_of(models, CRITICISED, critique_weight=0.3)
    expected = 0.0
    for example in CRITICISED:
        student = tokens(models.policy, example.prompt, example.completion)
        teacher = tokens(models.reference, example.teacher_prompt, example.completion)
        per_token = [divergence(p, q) for p, q in zip(student, teacher, strict=True)]
        expected += example.weight * sum(per_token) / len(per_token)
    assert expected > 0.1
    assert float(sums[Stat.CRITIQUE]) == pytest.approx(expected, rel=1e-5)
    assert float(sums[Stat.CRITIQUE_WEIGHT]) == 2.5
    assert float(loss) == pytest.approx(0.3 * expected, rel=1e-5)


def test_the_divergence_equals_trl(monkeypatch):
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    from trl.experimental.sdpo.loss_utils import compute_full_logit_self_distillation_loss

    torch.manual_seed(0)
    student, teacher = torch.randn(2, 5, 30)
    theirs = compute_full_logit_self_distillation_loss(student, teacher, distillation_alpha=1.0)
    ours = critique_loss(student.log_softmax(-1), teacher.log_softmax(-1))
    assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_a_critique_that_changes_nothing_teaches_nothing(models):
    own = Models(models.reference, models.reference, models.tokenizer)
    same = [replace(e, teacher_prompt=e.prompt) for e in CRITICISED]
    loss, _ = loss_of(own, same)
    assert float(loss) == pytest.approx(0, abs=1e-5)
    assert float(gradient_of(own, same).abs().max()) < 1e-4


def test_the_student_moves_towards_the_teacher(models):
    student = Models(models.policy, models.reference, models.tokenizer)
    before, _ = loss_of(student, CRITICISED)
    step = 0.5 * gradient_of(student, CRITICISED)
    start = 0
    with torch.no_grad():
        for parameter in student.policy.parameters():
            parameter -= step[start : start + parameter.numel()].view_as(parameter)
            start += parameter.numel()
    after, _ = loss_of(student, CRITICISED)
    assert float(after) < 0.9 * float(before)
