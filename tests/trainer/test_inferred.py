"""Questions that their own feedback leaves without an answer, answered as others predict."""

import random
from collections.abc import Sequence

import pytest

from tacit.contracts import Outcome, ReplayExample, ScreenedEvent
from tests.builders import user
from tests.trainer.askers import BAD, PARCEL, PASSWORD, correction, keys, outcome
from trainer.doubts import Doubts, doubts_of
from trainer.inferred import inferred_lessons

NONE = Doubts()


def said(
    events: list[ScreenedEvent],
    doubted: Doubts = NONE,
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


def test_what_a_question_turned_down_is_not_inferred_for_it_though_that_is_doubted() -> None:
    taught = [correction(prompt, "portal") for prompt in PASSWORD[:-1]]
    complaint = outcome(PASSWORD[-1], "Portal", BAD)
    doubts = doubts_of([*taught, complaint])
    assert doubts.keys == keys(complaint)
    other = outcome(PASSWORD[-1], "sorry", BAD)
    for doubted in (NONE, doubts):
        assert said([*taught, complaint], doubted) == []
        assert said([*taught, complaint, other], doubted) == []
    assert said([*taught, other]) == [(PASSWORD[-1], "portal")]


def test_a_question_that_anybody_answered_is_not_answered_again() -> None:
    taught = [correction(prompt, "portal") for prompt in PASSWORD]
    complaint = outcome(PASSWORD[0], "sorry", BAD)
    assert said([complaint, *taught]) == []
    doubted = Doubts(outvoted=frozenset(keys(taught[0])))
    assert said([complaint, *taught], doubted) == [(PASSWORD[0], "portal")]


def test_however_many_ask_a_question_it_is_one() -> None:
    taught = [correction(prompt, "portal") for prompt in PASSWORD[:-1]]
    complaints = [outcome(PASSWORD[-1], "sorry", BAD) for _ in range(5)]
    assert said([*taught, *complaints]) == [(PASSWORD[-1], "portal")]


def test_questions_of_an_overturned_rule_get_the_new_answer() -> None:
    old = [correction(prompt, "portal") for prompt in PASSWORD[:9]]
    new = [correction(prompt, "desk", said="portal") for prompt in PASSWORD[9:]]
    doubted = Doubts(overtaken=dict.fromkeys(keys(*old)))
    assert said([*old, *new], doubted) == [(prompt, "desk") for prompt in PASSWORD[:9]]


UNLIKE = "and if it rains"


@pytest.mark.parametrize(
    ("named", "num_subjects", "found"),
    [
        pytest.param("desk", 3, [(UNLIKE, "Desk")], id="named"),
        pytest.param(None, 3, [], id="not-named"),
        pytest.param("desk", 2, [], id="too-few-teach-it"),
    ],
)
def test_where_nothing_is_predicted_stands_what_took_the_place_of_the_old_answer(
    named: str | None, num_subjects: int, found: list[tuple[str, str]]
) -> None:
    old = correction(UNLIKE, "portal")
    new = [correction(prompt, "Desk", said="portal") for prompt in PASSWORD[:num_subjects]]
    asides = [correction(prompt, "carrier") for prompt in PARCEL]
    doubted = Doubts(overtaken=dict.fromkeys(keys(old), named))
    assert said([old, *asides, *new], doubted) == found


def test_what_took_the_place_of_the_old_answer_is_one_answer_that_was_not_turned_down() -> None:
    old = [correction(UNLIKE, answer) for answer in ("portal", "lobby")]
    new = [
        correction(prompt, answer, said="portal")
        for answer, prompts in (("desk", PASSWORD[:9]), ("carrier", PARCEL))
        for prompt in prompts
    ]
    (first, second) = (event.event_key for event in old)
    assert said([*old, *new], Doubts(overtaken={first: "desk", second: "carrier"})) == []
    both = Doubts(overtaken={first: "desk", second: "desk"})
    assert said([*old, *new], both) == [(UNLIKE, "desk")]
    assert said([*old, *new, outcome(UNLIKE, "desk", BAD)], both) == []


@pytest.mark.parametrize(("standing", "replaced"), [(1, True), (2, False)])
@pytest.mark.parametrize("by", ["", "u-often"])
def test_an_answer_that_mostly_stands_is_replaced_nowhere(
    standing: int, replaced: bool, by: str
) -> None:
    """One who praises it again and again does not keep it standing."""
    old = [correction(prompt, "portal") for prompt in (UNLIKE, PASSWORD[0])]
    stands = [correction(prompt, "portal", by=by) for prompt in PARCEL[:standing]]
    new = [correction(prompt, "desk") for prompt in PASSWORD]
    doubted = Doubts(overtaken=dict.fromkeys(keys(*old), "desk"))
    found = said([*old, *stands, *new], doubted)
    assert found == ([(UNLIKE, "desk")] if replaced or by else [])


def test_one_who_is_overtaken_again_and_again_changes_no_rule() -> None:
    old = [correction(prompt, "portal", by="u-often") for prompt in (UNLIKE, *PARCEL[3:])]
    stands = [correction(prompt, "portal") for prompt in PARCEL[:3]]
    new = [correction(prompt, "desk") for prompt in PASSWORD]
    assert said([*old, *stands, *new], Doubts(overtaken=dict.fromkeys(keys(*old), "desk"))) == []


def test_what_was_overtaken_itself_takes_no_place() -> None:
    """The portal became the desk, and the desk the hub."""
    oldest = correction(UNLIKE, "portal")
    old = [correction(prompt, "desk") for prompt in PASSWORD[:9]]
    stands = [correction(prompt, "desk") for prompt in PARCEL[:3]]
    new = [correction(prompt, "hub") for prompt in PASSWORD[9:]]
    overtaken = {oldest.event_key: "desk", **dict.fromkeys(keys(*old), "hub")}
    found = said([oldest, *old, *stands, *new], Doubts(overtaken=overtaken))
    assert UNLIKE not in dict(found)
    assert "hub" in dict(found).values()


def test_an_empty_answer_is_inferred_no_further_than_another() -> None:
    taught = [correction(prompt, "  ") for prompt in PASSWORD[:5]]
    assert said([*taught, outcome(UNLIKE, "sorry", BAD)]) == []


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
    (lesson,) = inferred_lessons([*half, complaint], NONE)
    assert lesson.weight == pytest.approx(0.5)
    assert lesson.origin == "inferred"
    assert lesson.is_lesson
    unknown = [event.model_copy(update={"weight": 0.0}) for event in trusted]
    assert inferred_lessons([*unknown, complaint], NONE) == []


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


def test_answers_to_fewer_than_three_questions_are_not_enough() -> None:
    crowd = [correction(PASSWORD[0], "portal") for _ in range(9)]
    complaint = outcome(PASSWORD[3], "sorry", BAD)
    elsewhere = [correction(prompt, "portal") for prompt in PASSWORD[1:3]]
    assert said([*crowd, elsewhere[0], complaint]) == []
    assert said([*crowd, *elsewhere, complaint]) == [(PASSWORD[3], "portal")]


def test_a_quorum_is_asked_for_what_is_inferred_as_well() -> None:
    taught = [correction(prompt, "portal") for prompt in PASSWORD[:5]]
    complaint = outcome(PASSWORD[-1], "sorry", BAD)
    assert len(inferred_lessons([*taught, complaint], NONE, min_subjects=5)) == 1
    assert inferred_lessons([*taught, complaint], NONE, min_subjects=6) == []


def test_who_asks_decides_no_more_than_what_they_say_counts() -> None:
    taught = [correction(prompt, "portal") for prompt in PASSWORD[:-1]]
    complaint = outcome(PASSWORD[-1], "sorry", BAD)
    little, nothing = (complaint.model_copy(update={"weight": w}) for w in (0.25, 0.0))
    (lesson,) = inferred_lessons([*taught, little], NONE)
    assert lesson.weight == 0.25
    assert inferred_lessons([*taught, nothing], NONE) == []


def test_who_does_not_count_has_no_vote() -> None:
    taught = [correction(prompt, "portal") for prompt in PASSWORD[:2]]
    unknown = [correction(prompt, "portal") for prompt in PASSWORD[2:9]]
    unknown = [event.model_copy(update={"weight": 0.0}) for event in unknown]
    assert said([*taught, *unknown, outcome(PASSWORD[-1], "sorry", BAD)]) == []


def test_no_more_is_inferred_than_was_taught() -> None:
    taught = [correction(prompt, "portal") for prompt in PASSWORD[::4]]
    others = [outcome(p, "sorry", BAD) for p in PASSWORD if p not in PASSWORD[::4]]
    assert len(others) > len(taught)
    assert len(said([*taught, *others])) == len(taught)


def test_answers_that_the_words_of_a_question_do_not_tell_apart_are_not_inferred() -> None:
    generator = random.Random(0)
    words = ["plot", "cast", "music", "pace", "script", "ending", "hero", "scene", "joke"]

    def review() -> str:
        return "what do i say of " + " ".join(generator.sample(words, 4))

    events = [correction(review(), "good" if n % 5 else "poor") for n in range(100)]
    complaints = [outcome(review(), "sorry", BAD) for _ in range(20)]
    doubts = doubts_of([*events, *complaints])
    assert said([*events, *complaints], doubts) == []
    agreed = [event for n, event in enumerate(events) if n % 5]
    assert len(said([*agreed, *complaints])) > 10


def test_nothing_is_inferred_for_conversations_whose_end_alone_is_compared() -> None:
    end = "is this refund to be approved " * 20
    taught = [correction(f"order {n} {end}", "approve") for n in range(9)]
    assert said([*taught, outcome(f"order 9 {end}", "sorry", BAD)]) == []


def test_the_wording_is_that_of_most_subjects() -> None:
    many = [correction(prompt, "if a: b") for prompt in PASSWORD[:4]]
    loud = [correction(prompt, "if a:\n b", by="loud") for prompt in PASSWORD[4:-1]]
    found = said([*many, *loud, outcome(PASSWORD[-1], "sorry", BAD)])
    assert found == [(PASSWORD[-1], "if a: b")]
