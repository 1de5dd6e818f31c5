"""Questions that their own feedback leaves without an answer, answered as others predict."""

from collections.abc import Sequence

import pytest

from tacit.contracts import Outcome, ReplayExample, ScreenedEvent
from tests.builders import user
from tests.trainer.askers import BAD, PARCEL, PASSWORD, correction, keys, outcome
from trainer.doubts import doubted_keys
from trainer.inferred import inferred_lessons


def said(
    events: list[ScreenedEvent],
    doubted: frozenset[str] = frozenset(),
    anchor: Sequence[ReplayExample] = (),
) -> list[tuple[str, str]]:
    """Prompt and completion of each lesson."""
    found = inferred_lessons(events, doubted, anchor)
    return [(example.prompt[-1].content, example.completion) for example in found]


def test_who_only_complains_gets_the_answer_that_others_taught() -> None:
    taught = [correction(prompt, "Portal") for prompt in PASSWORD[:-1]]
    others = [correction(prompt, "carrier") for prompt in PARCEL[:-1]]
    complaints = [outcome(PASSWORD[-1], "sorry", BAD), outcome(PARCEL[-1], "portal", BAD)]
    assert said([*taught, *others, *complaints]) == [
        (PASSWORD[-1], "Portal"),
        (PARCEL[-1], "carrier"),
    ]


def test_what_a_question_turned_down_is_not_inferred_for_it() -> None:
    taught = [correction(prompt, "portal") for prompt in PASSWORD[:-1]]
    assert said([*taught, outcome(PASSWORD[-1], "Portal", BAD)]) == []


def test_a_complaint_that_is_doubted_turns_nothing_down() -> None:
    taught = [correction(prompt, "portal") for prompt in PASSWORD[:-1]]
    lie = outcome(PASSWORD[-1], "portal", BAD)
    doubted = doubted_keys([*taught, lie])
    assert doubted == keys(lie)
    assert said([*taught, lie], doubted) == [(PASSWORD[-1], "portal")]


def test_questions_of_an_overturned_rule_get_the_new_answer() -> None:
    old = [correction(prompt, "portal") for prompt in PASSWORD[:9]]
    new = [correction(prompt, "desk", said="portal") for prompt in PASSWORD[9:]]
    doubted = keys(*old)
    assert said([*old, *new], doubted) == [(prompt, "desk") for prompt in PASSWORD[:9]]


def test_what_is_known_of_a_question_stays() -> None:
    taught = [correction(prompt, "portal") for prompt in PASSWORD]
    assert said([*taught, correction(PASSWORD[0], "desk")]) == []


@pytest.mark.parametrize("num_subjects", [2, 3])
def test_fewer_than_three_subjects_decide_nothing(num_subjects: int) -> None:
    taught = [
        correction(prompt, "portal", by=f"u-{number % num_subjects}")
        for number, prompt in enumerate(PASSWORD[:-1])
    ]
    found = said([*taught, outcome(PASSWORD[-1], "sorry", BAD)])
    assert found == ([(PASSWORD[-1], "portal")] if num_subjects == 3 else [])


def test_nothing_is_inferred_where_two_answers_are_as_likely() -> None:
    taught = [correction(prompt, "portal") for prompt in PASSWORD[:-1]]
    taught += [correction(prompt, "desk") for prompt in PASSWORD[:-1]]
    assert said([*taught, outcome(PASSWORD[-1], "sorry", BAD)]) == []


def test_nothing_is_inferred_about_another_topic() -> None:
    taught = [correction(prompt, "portal") for prompt in PASSWORD]
    assert said([*taught, outcome("will it rain tomorrow", "sorry", BAD)]) == []


def test_a_question_about_what_the_anchor_knows_is_not_taken_for_a_new_topic() -> None:
    asked = [prompt.replace("password", "phone number") for prompt in PASSWORD]
    taught = [correction(prompt, "portal") for prompt in PASSWORD]
    complaint = outcome(asked[-1], "sorry", BAD)
    anchor = [
        ReplayExample(prompt=user(prompt), completion="settings", origin="anchor")
        for prompt in asked[:-1]
    ]
    assert said([*taught, complaint]) == [(asked[-1], "portal")]
    assert said([*taught, complaint], anchor=anchor) == []


def test_an_anchor_whose_texts_never_recur_has_no_say() -> None:
    taught = [correction(prompt, "portal") for prompt in PASSWORD[:-1]]
    anchor = [
        ReplayExample(prompt=user(prompt), completion=f"of {prompt}", origin="anchor")
        for prompt in PASSWORD
    ]
    complaint = outcome(PASSWORD[-1], "sorry", BAD)
    assert said([*taught, complaint], anchor=anchor) == [(PASSWORD[-1], "portal")]


def test_a_lesson_has_the_mean_weight_of_who_said_it_and_nobody_else() -> None:
    trusted = [correction(prompt, "portal") for prompt in PASSWORD[:-1]]
    half = [event.model_copy(update={"weight": 0.5}) for event in trusted]
    complaint = outcome(PASSWORD[-1], "sorry", BAD)
    (lesson,) = inferred_lessons([*half, complaint], frozenset())
    assert lesson.weight == pytest.approx(0.5)
    assert lesson.origin == "inferred"
    assert lesson.is_lesson
    unknown = [event.model_copy(update={"weight": 0.0}) for event in trusted]
    assert inferred_lessons([*unknown, complaint], frozenset()) == []


def test_praise_counts_as_teaching() -> None:
    good = Outcome(metric="resolved", value=True)
    praised = [outcome(prompt, "portal", good) for prompt in PASSWORD[:-1]]
    assert said([*praised, outcome(PASSWORD[-1], "sorry", BAD)]) == [(PASSWORD[-1], "portal")]


def test_answers_in_ones_own_words_predict_nothing() -> None:
    taught = [correction(prompt, f"word {n} of my own") for n, prompt in enumerate(PASSWORD[:-1])]
    assert said([*taught, outcome(PASSWORD[-1], "sorry", BAD)]) == []


def test_no_feedback_no_lessons() -> None:
    assert said([]) == []
    assert said([outcome(PASSWORD[0], "sorry", BAD)]) == []
