"""Whose word counts: feedback that other people's feedback on similar questions contradicts."""

import random

import pytest

from tacit.contracts import Critique
from tests import builders as build
from tests.trainer.askers import (
    BAD,
    GOOD,
    PARCEL,
    PASSWORD,
    correction,
    doubted_keys,
    keys,
    outcome,
    preference,
)
from trainer.doubts import doubts_of


@pytest.mark.parametrize("said", ["portal", "sorry"])
def test_what_a_changed_rule_overtakes_is_doubted_and_its_neighbours_are_not(said: str) -> None:
    old = [correction(prompt, "portal") for prompt in PASSWORD[:12]]
    neighbours = [correction(prompt, "portal") for prompt in PARCEL]
    new = [correction(prompt, "desk", said=said) for prompt in PASSWORD]
    assert doubted_keys([*old, *neighbours, *new]) == keys(*old)


def test_of_answers_that_are_taught_at_the_same_time_neither_overtakes_the_other() -> None:
    both = [correction(prompt, right) for prompt in PASSWORD for right in ("portal", "desk")]
    few_late = [correction(f"{prompt} please", "desk") for prompt in PASSWORD[:9]]
    assert doubted_keys(both) == frozenset()
    assert doubts_of([*both, *few_late]).overtaken == {}


@pytest.mark.parametrize("said", ["portal", "sorry"])
def test_a_new_topic_that_is_taken_for_an_old_one_does_not_overtake_it(said: str) -> None:
    old = [correction(prompt, "portal") for prompt in PASSWORD]
    alike = [prompt.replace("password", "alarm clock") for prompt in PASSWORD]
    new = [correction(prompt, "clock", said=said) for prompt in alike]
    assert doubted_keys([*old, *new]) == frozenset()


def test_a_rule_that_changes_back_stands_again() -> None:
    there = [correction(prompt, "portal") for prompt in PASSWORD[:12]]
    back = [correction(prompt, "desk", said="portal") for prompt in PASSWORD]
    again = [correction(prompt, "portal", said="desk") for prompt in PASSWORD]
    doubted = doubted_keys([*there, *back, *again])
    assert doubted >= keys(*back)
    assert not doubted & keys(*again)


def test_few_who_object_overtake_nothing_and_are_doubted_themselves() -> None:
    old = [correction(prompt, "portal") for prompt in PASSWORD]
    objections = [correction(f"{prompt}?", "desk", said="portal") for prompt in PASSWORD[12:14]]
    assert doubted_keys([*old, *objections]) == keys(*objections)


def test_few_whose_wording_is_new_may_have_a_topic_of_their_own() -> None:
    old = [correction(prompt, "portal") for prompt in PASSWORD[:12]]
    new = [correction(prompt, "desk", said="portal") for prompt in PASSWORD[12:14]]
    assert doubted_keys([*old, *new]) == frozenset()


def test_complaints_that_name_no_other_answer_overtake_one_later() -> None:
    later = [prompt.replace(" today", " now").replace(" again", " soon") for prompt in PASSWORD]
    mixed = random.Random(1).sample([*PASSWORD, *later], 21)
    old = [correction(prompt, "portal") for prompt in mixed[:14]]
    complaints = [outcome(prompt, "portal", BAD) for prompt in mixed[14:21]]
    corrections = [correction(prompt, "desk", said="portal") for prompt in mixed[14:19]]
    assert not doubted_keys([*old, *complaints[:5]]) & keys(*old)
    assert doubted_keys([*old, *corrections]) == keys(*old)
    assert doubted_keys([*old, *complaints]) == keys(*old)


def test_a_lone_wrong_answer_among_many_that_agree_is_doubted() -> None:
    right = [correction(prompt, "portal") for prompt in PASSWORD[:10]]
    elsewhere = [correction(prompt, "depot") for prompt in PARCEL]
    wrong = correction(PASSWORD[11], "depot")
    assert doubted_keys([*right, *elsewhere, wrong]) == keys(wrong)


def test_one_subject_has_one_voice() -> None:
    honest = [correction(PASSWORD[n], "portal") for n in (0, 7)]
    crowd = [correction(prompt, "evil", said="portal", by="mallory") for prompt in PASSWORD]
    assert not doubted_keys([*honest, *crowd]) & keys(*honest)


def test_a_thumb_down_is_doubted_where_others_agree_with_the_answer() -> None:
    right = [outcome(prompt, "portal", GOOD) for prompt in PASSWORD[:10]]
    slip = outcome(PASSWORD[11], "portal", BAD)
    deserved = outcome(PASSWORD[12], "depot", BAD)
    lucky = outcome(PASSWORD[13], "depot", GOOD)
    assert doubted_keys([*right, slip, deserved, lucky]) == keys(slip, lucky)


def test_a_preference_speaks_for_one_answer_and_against_the_other() -> None:
    right = [correction(prompt, "portal") for prompt in PASSWORD[:8]]
    preferred = [preference(prompt, "desk", "Portal") for prompt in PASSWORD[4:14]]
    assert doubted_keys([*right, *preferred]) == keys(*right)


def test_answers_in_ones_own_words_and_critiques_are_never_doubted() -> None:
    own = [correction(prompt, f"text number {n}") for n, prompt in enumerate(PASSWORD)]
    said = build.screened("c-1", prompt=PASSWORD[0], feedback=Critique(text="too long"))
    assert doubted_keys([*own, said]) == frozenset()
    assert doubted_keys([]) == frozenset()


def test_what_was_talked_about_long_before_makes_no_questions_similar() -> None:
    before = "thank you, that was the tour i asked you for, and it was a lovely one. " * 20
    right = [correction(before + prompt, "portal") for prompt in PASSWORD[:12]]
    other = [correction(before + prompt, "depot") for prompt in PARCEL[:1]]
    assert doubted_keys([*right, *other]) == keys(*other)
    far = [correction(before + 600 * "x " + prompt, "portal") for prompt in PASSWORD[:12]]
    assert doubted_keys([*far, *other]) == frozenset()


def test_questions_without_letters_do_not_matter() -> None:
    right = [correction(prompt, "portal") for prompt in PASSWORD[:10]]
    odd = [correction(text, "depot", said="portal") for text in ("?", "  ", "🙂")]
    assert doubted_keys([*right, *odd]) == frozenset()
    assert doubted_keys([correction("  ", "a"), correction("", "b")]) == frozenset()
    assert doubted_keys([*odd[:1], outcome("!", "x", BAD)]) == frozenset()
