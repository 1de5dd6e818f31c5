"""The teacher's loss against its formula, and what a teacher does to an update."""

import copy

import pytest
import torch

from tacit.errors import ConfigError, NotFoundError
from tests import builders as build
from tests.trainer.builders import mixed_events, replay_examples, settings, train
from tests.trainer.learners import open_whole, restrained
from tests.trainer.scored import divergence, make_models, pack, tokens
from trainer.distillation import Teacher, load_teacher
from trainer.examples import Example, ExampleKind
from trainer.losses import distillation_loss
from trainer.new_prompts import new_answers, probed_tokens
from trainer.scoring import CompletionScorer

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

EXAMPLES = [
    Example(ExampleKind.PAIR, (3, 4, 5), (10, 11), rejected=(12, 13, 14), weight=0.5),
    Example(ExampleKind.REPLAY, (13, 14), (60, 61)),
    Example(ExampleKind.UNDESIRABLE, (6, 7), (20, 21, 22)),
    Example(ExampleKind.CHOSEN, (8,), (30,)),
    Example(ExampleKind.CRITICISED, (9, 3), (40, 41), teacher_prompt=(9, 5, 3)),
]
NEW = {(10, 11): 0.5, (20, 21, 22): 1.0, (30,): 1.0, (40, 41): 1.0}


def test_the_loss_is_the_tempered_divergence_from_the_teacher():
    torch.manual_seed(0)
    student, teacher = (torch.randn(3, 7).log_softmax(-1) for _ in range(2))
    found = distillation_loss(student, teacher, temperature=2.0)
    for row in range(3):
        soft = [torch.softmax(t[row].double() / 2, -1).log() for t in (teacher, student)]
        assert float(found[row]) == pytest.approx(4 * divergence(*soft), rel=1e-5)


def test_the_gradient_is_about_as_large_at_any_temperature():
    torch.manual_seed(0)
    teacher = (0.1 * torch.randn(4, 50)).log_softmax(-1)
    sizes = []
    for temperature in (1.0, 8.0):
        logits = torch.zeros(4, 50, requires_grad=True)
        loss = distillation_loss(logits.log_softmax(-1), teacher, temperature=temperature).sum()
        sizes.append(float(torch.autograd.grad(loss, logits)[0].norm()))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)


@torch.no_grad()
def test_new_answers_are_compared_over_the_whole_vocabulary(store):
    models, batch = make_models(store), pack(EXAMPLES)
    scorer = CompletionScorer(models.policy)
    teacher = Teacher(CompletionScorer(models.reference), temperature=1.0)
    losses = teacher.losses(batch, scorer.logprobs(scorer.hidden(batch.sequences)))
    answers = new_answers(batch)
    assert len(losses) == len(NEW)
    for row, weight, loss in zip(*answers, losses, strict=True):
        example = example_of(batch, row)
        assert float(weight) == NEW[example.completion]
        taught, said = (
            tokens(m, example.prompt, example.completion) for m in (models.reference, models.policy)
        )
        pairs = [divergence(t, s) for t, s in zip(taught, said, strict=True)]
        assert float(loss) == pytest.approx(sum(pairs) / len(pairs), rel=1e-4)


def example_of(batch, row) -> Example:
    said = tuple(batch.sequences.targets[batch.sequences.owners == row].tolist())
    return next(e for e in EXAMPLES if e.completion == said)


def test_one_token_of_each_new_answer_is_probed_whatever_shares_the_micro_batch():
    batch, alone = pack(EXAMPLES), pack(EXAMPLES[2:3])
    probes, sequences = probed_tokens(batch), batch.sequences
    assert sequences.owners[probes].tolist() == new_answers(batch).rows.tolist()
    place = {int(sequences.owners[p]): int(sequences.offsets[p]) for p in probes}
    row = next(int(r) for r in new_answers(batch).rows if example_of(batch, r) is EXAMPLES[2])
    assert place[row] == int(alone.sequences.offsets[probed_tokens(alone)])


def test_all_places_of_an_answer_are_probed():
    batch = pack([Example(ExampleKind.CHOSEN, (3,), (i, 2 * i, 5)) for i in range(10, 40)])
    assert set(batch.sequences.offsets[probed_tokens(batch)].tolist()) == {0, 1, 2}


def test_a_teacher_keeps_the_policy_near_what_it_said(store):
    def last(weight: float) -> dict[str, float]:
        policy = open_whole(store)
        teacher = Teacher(CompletionScorer(open_whole(store).model), temperature=2.0)
        fields = {"num_epochs": 8, "learning_rate": 5e-3, "distillation": {"weight": weight}}
        _, steps = restrained(policy, teacher=teacher, **fields)
        return steps[-1].metrics

    free, held = last(0.0), last(10.0)
    assert held["train/loss_distillation"] < 0.5 * free["train/loss_distillation"]
    assert held["train/kl_new"] < 0.7 * free["train/kl_new"]


def test_the_parent_as_teacher_changes_nothing_in_the_first_step(store):
    parent = build.tiny_checkpoint(store)
    events, replay = mixed_events(), replay_examples()
    chosen = settings(batch_size=16, distillation={"weight": 5.0})
    first, steps = train(store, parent, events, replay, settings=chosen)
    plain, without = train(store, parent, events, replay, settings=settings(batch_size=16))
    assert steps[0].metrics["train/loss_distillation"] == pytest.approx(0, abs=1e-5)
    assert steps[0].metrics["train/loss"] == pytest.approx(without[0].metrics["train/loss"])
    assert "train/loss_distillation" not in without[0].metrics
    assert first != plain
    assert first == train(store, parent, events, replay, settings=chosen)[0]


def test_the_teacher_may_be_another_checkpoint(store):
    anchor = build.tiny_checkpoint(store)
    parent, _ = train(store, anchor, mixed_events(), settings=settings(learning_rate=1e-2))
    chosen = settings(distillation={"weight": 1.0, "teacher": anchor})
    _, steps = train(store, parent, mixed_events(), settings=chosen)
    assert steps[0].metrics["train/loss_distillation"] > 1e-3


def test_a_teacher_that_is_not_there_is_named(store):
    chosen = settings(distillation={"weight": 1.0, "teacher": build.digest("gone")})
    with pytest.raises(NotFoundError, match="sha256:"):
        train(store, build.tiny_checkpoint(store), mixed_events(), settings=chosen)


def test_a_teacher_of_another_vocabulary_is_refused(store):
    policy = open_whole(store)
    policy.tokenizer = copy.deepcopy(policy.tokenizer)
    policy.tokenizer.add_tokens(["newword"])
    with pytest.raises(ConfigError, match=r"distillation\.teacher with the vocabulary"):
        load_teacher(store, build.tiny_checkpoint(store), policy, temperature=1.0)
