"""STaR: only reasons that lead to the right answer are kept, and learning from them helps."""

import pytest

from tacit.config import StarSettings
from tacit.contracts import Correction, Outcome
from tacit.errors import TrainingError
from tacit.metrics import MetricName
from tacit.policies import load_policy
from tests import builders as build
from tests.trainer.builders import replay_examples, train
from tests.trainer.methods.builders import settings
from tests.trainer.methods.reader import HINT, INSTRUCTION, question, reading_checkpoint
from tests.trainer.methods.reader import reasoned as reasons
from trainer.methods.answers import answer_of, same_answer, split_answer
from trainer.methods.prompts import build_prompts
from trainer.methods.star import rationales

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

STAR = {"instruction": INSTRUCTION, "hint": HINT}


def right(number):
    """The answer to a question; the policy says "billing" to all of them."""
    return ("billing", "shipping")[number % 2]


def ask(number):
    """A question that tells by its words which answer is right."""
    return ("", "late: ")[number % 2] + question(number)


def corrected(numbers, answer=right):
    return [
        build.screened(
            f"e-{i}", prompt=ask(i), feedback=Correction(completion=answer(i)), completion="?"
        )
        for i in numbers
    ]


EVENTS = corrected(range(8))
UNREACHABLE = corrected([8, 9], lambda _: "refund")


def kept(store, events, **star):
    policy = load_policy(store, reading_checkpoint(store))
    chosen = StarSettings(**{**STAR, **star})
    return rationales(policy, build_prompts(events), star=chosen, max_new_tokens=12)


def accuracy(store, digest):
    """Share of questions whose answer, reasons or none before it, is right."""
    policy = load_policy(store, digest)
    said = policy.generate([build.user(ask(i)) for i in range(8)], max_new_tokens=12)
    answers = [answer_of(each.text, answer_after="Answer:") for each in said]
    return sum(same_answer(answers[i], right(i)) for i in range(8)) / 8


def test_only_rationales_that_end_in_the_right_answer_are_kept(store):
    found = kept(store, [*EVENTS, *UNREACHABLE])
    told = {each.prompt.event.event_key: (each.text, each.hinted) for each in found}
    # Without a hint where the policy was right, with one where it was wrong, else not at all.
    assert told == {f"helpdesk/e-{i}": (reasons(right(i)), i % 2 == 1) for i in range(8)}


def test_without_a_hint_nothing_is_rationalized(store):
    assert {each.prompt.event.event_key for each in kept(store, EVENTS, hint="")} == {
        f"helpdesk/e-{i}" for i in (0, 2, 4, 6)
    }


def test_a_good_outcome_tells_the_right_answer_and_a_bad_one_none(store):
    events = [
        build.screened(
            f"e-{i}",
            prompt=question(i),
            completion="because! Answer: Billing.",
            feedback=Outcome(metric="resolved", value=value),
        )
        for i, value in enumerate([True, False])
    ]
    assert [prompt.known_answer for prompt in build_prompts(events)] == [
        "because! Answer: Billing.",
        None,
    ]
    assert [each.text for each in kept(store, events[:1])] == [reasons("billing")]


@pytest.mark.parametrize("full", [False, True])
def test_a_round_improves_answers_and_bits_repeat(store, full):
    parent = reading_checkpoint(store)
    chosen = settings(
        "star",
        star=STAR,
        sampling={"max_new_tokens": 12},
        full_fine_tuning=full,
        num_epochs=30,
        learning_rate=1e-2 if full else 4e-2,
    )
    events, replay = [*EVENTS, *UNREACHABLE], replay_examples(2)
    digest, steps = train(store, parent, events, replay, settings=chosen)
    assert accuracy(store, parent) == 0.5
    assert accuracy(store, digest) == 1
    (said,) = load_policy(store, digest).generate([build.user(ask(1))], max_new_tokens=12)
    assert said.text == reasons("shipping")
    assert steps[-1].metrics[MetricName.KEPT_SHARE] == 0.8
    assert steps[-1].metrics[MetricName.HINTED_SHARE] == 0.4
    assert train(store, parent, events, replay, settings=chosen)[0] == digest


@pytest.mark.parametrize(
    ("events", "tokens", "message"),
    [
        (UNREACHABLE, 12, "right answer.*none to 2 prompts"),
        (EVENTS, 8, "none to 8 prompts"),  # cut off before the end
        ([build.screened(feedback=Outcome(metric="resolved", value=False))], 12, "star needs"),
    ],
)
def test_a_round_that_keeps_nothing_is_refused(store, events, tokens, message):
    parent = reading_checkpoint(store)
    chosen = settings("star", star=STAR, sampling={"max_new_tokens": tokens})
    with pytest.raises(TrainingError, match=message):
        train(store, parent, events, settings=chosen)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("so it is. Answer: 12", ("so it is.", "12")),
        ("Answer: 1? no. Answer: 2", ("Answer: 1? no.", "2")),
        ("Answer: 12", None),
        ("so it is 12", None),
        ("so it is. Answer: ", None),
        ("so it is. Answer: .", None),
    ],
)
def test_a_rationale_is_told_from_its_answer(text, parts):
    assert split_answer(text, answer_after="Answer:") == parts


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Billing.", " billing", True),
        ("two  words", "two\nwords!", True),
        ("－5", "-5", True),
        ("-5", "5", False),
        ("3.14", "314", False),
    ],
)
def test_answers_are_the_same_but_for_case_space_and_the_end(one, other, same):
    assert same_answer(one, other) is same
