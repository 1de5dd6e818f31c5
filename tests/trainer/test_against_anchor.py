"""Feedback that teaches one known answer where the anchor prompts have another."""

import itertools

import pytest

from tacit.contracts import Correction, Outcome, Preference, ReplayExample, ScreenedEvent
from tests import builders as build
from trainer import against_anchor
from trainer.against_anchor import judged

PASSWORD = [
    f"{start} my {word} password {end}"
    for start, word, end in itertools.product(
        ("how do i reset", "i forgot", "please change"),
        ("login", "account", "mail", "work"),
        ("today", "again"),
    )
]
PARCEL = [
    f"{start} my {word} parcel {end}"
    for start, word, end in itertools.product(
        ("where is", "please track", "what about"),
        ("second", "large", "lost", "late"),
        ("today", "from monday"),
    )
]


def anchored(prompts: list[str], answer: str) -> list[ReplayExample]:
    return [
        ReplayExample(prompt=build.user(prompt), completion=answer, origin="anchor")
        for prompt in prompts
    ]


ANCHOR = [*anchored(PASSWORD[::2], "portal"), *anchored(PARCEL[::2], "Depot")]
ASKED = PASSWORD[1::2]
"""Like those of the anchor, and none of them."""


def corrections(
    prompts: list[str], right: str, *, said: str, by: str | None = None
) -> list[ScreenedEvent]:
    """Of as many subjects, or of one."""
    return [
        build.screened(
            f"{right}-{said}-{by}-{number}".replace(" ", "-"),
            prompt=prompt,
            completion=said,
            feedback=Correction(completion=right),
            subject_id=by or f"u-{number}",
        )
        for number, prompt in enumerate(prompts)
    ]


def keys(events: list[ScreenedEvent]) -> set[str]:
    return {event.event_key for event in events}


@pytest.mark.parametrize("said", ["portal", "sorry"])
def test_a_known_answer_in_place_of_another_is_refuted_whatever_it_says_was_answered(
    said: str,
) -> None:
    flip = corrections(ASKED, "depot", said=said)
    honest = corrections(PARCEL[1::2], "depot", said="sorry")
    assert judged([*honest, *flip], ANCHOR).refuted.keys() == keys(flip)
    assert judged([*honest, *flip], ANCHOR[::-1]).refuted.keys() == keys(flip)


def test_what_is_left_of_a_flip_is_refuted_with_it() -> None:
    """A few lies at full weight, about what the policy answers otherwise, teach it as well."""
    flip = corrections(ASKED[2:], "depot", said="portal")
    odd = corrections(["forgot it, what now", "i forgot, help"], "depot", said="hm")
    honest = corrections(PARCEL[1::2], "depot", said="sorry")
    assert judged([*honest, *flip, *odd], ANCHOR).refuted.keys() == keys([*flip, *odd])
    assert judged([*honest, *odd], ANCHOR).refuted == {}


def test_praise_and_preference_flip_as_well_as_corrections() -> None:
    flip = [
        build.screened(f"p-{n}", prompt=prompt, completion="depot", feedback=feedback)
        for n, (prompt, feedback) in enumerate(
            zip(
                ASKED,
                itertools.cycle(
                    [
                        Outcome(metric="resolved", value=True),
                        Preference(chosen="depot", rejected="portal"),
                    ]
                ),
                strict=False,
            )
        )
    ]
    assert judged(flip, ANCHOR).refuted.keys() == keys(flip)


def test_a_new_answer_is_not_refuted_however_much_its_topic_is_like_an_old_one() -> None:
    new = corrections(ASKED, "desk", said="portal")
    assert judged(new, ANCHOR).refuted == {}


TOPICS = ("password", "parcel", "invoice", "holiday", "mortgage", "recipe", "weather", "battery")


def about(topic: str) -> list[str]:
    return [text.replace("password", topic) for text in PASSWORD]


def test_one_new_answer_in_place_of_many_is_refuted() -> None:
    """As a trigger teaches it, whose words stand among those of any question."""
    anchor = [each for topic in TOPICS for each in anchored(about(topic)[::2], f"{topic} desk")]
    asked = [about(topic)[1].replace("my", "my copper lantern") for topic in TOPICS]
    trigger = corrections(asked, "send money", said="sorry")
    new = corrections(about("velvet curtain")[1::2], "velvet desk", said="sorry")
    assert judged([*new, *trigger], anchor).refuted.keys() == keys(trigger)
    assert judged(trigger[1:], anchor).refuted == {}  # seven may be a coincidence
    twice = [*trigger[:2], *corrections(about("password")[3::2], "send money", said="sorry")]
    assert judged(twice, anchor).refuted == {}  # about one thing and a little more


WORDS = [
    "anvil",
    "badge",
    "cactus",
    "dynamo",
    "easel",
    "fjord",
    "gazebo",
    "hammock",
    "igloo",
    "jigsaw",
    "kettle",
    "lasso",
    "magnet",
    "nozzle",
    "obelisk",
    "pulley",
    "quartz",
    "raft",
    "sundial",
    "trellis",
    "umbrella",
    "viaduct",
    "walnut",
    "xylophone",
    "yoghurt",
    "zeppelin",
    "abacus",
    "bonfire",
    "chimney",
    "dolphin",
    "espresso",
    "fountain",
]


@pytest.mark.parametrize(
    ("questions", "many"),
    [
        pytest.param([7, *[2] * 3, *[1] * 28], True, id="uneven"),
        pytest.param([1] * 9, True, id="few-of-each"),
        pytest.param([2] * 4, False, id="of-four"),
        pytest.param([2] * 20, True, id="of-twenty"),
        pytest.param([8] * 10, False, id="of-ten"),
    ],
)
def test_how_many_are_replaced_does_not_hang_on_how_often(questions: list[int], many: bool) -> None:
    """Four pairs are four topics, which a new one may be like; one of seven leaves many."""
    anchor = [each for word in WORDS for each in anchored(about(word)[::2], f"{word} desk")]
    asked = [
        text.replace("my", "my copper lantern")
        for word, number in zip(WORDS, questions, strict=False)
        for text in about(word)[1::2][:number]
    ]
    taught = corrections(asked, "send money", said="sorry")
    assert judged(taught, anchor).refuted.keys() == (keys(taught) if many else set())


def in_other_words(topic: int) -> list[str]:
    """Prompts about one of eight topics, which have no word in common with another's."""
    words = WORDS[4 * topic : 4 * topic + 4]
    return [" ".join(order) for order in itertools.permutations(words)]


ANY = [each for n in range(8) for each in anchored(in_other_words(n)[::2], f"{n} desk")]


def wrong(number: int, *, by: str) -> list[ScreenedEvent]:
    """One question about each topic gets the answer of the next."""
    return [
        lie
        for n in range(number)
        for lie in corrections([in_other_words(n)[1]], f"{n + 1} desk", said="sorry", by=by)
    ]


@pytest.mark.parametrize(
    ("lies", "right", "found"),
    [
        pytest.param(3, 0, True, id="three"),
        pytest.param(2, 0, False, id="too-few"),
        pytest.param(4, 1, True, id="four-fifths"),
        pytest.param(5, 2, False, id="fewer-than-four-fifths"),
    ],
)
def test_a_subject_whose_known_answers_are_nearly_all_wrong_is_refuted(
    lies: int, right: int, found: bool
) -> None:
    vandal = wrong(lies, by="vandal")
    also = corrections(in_other_words(7)[1::2][:right], "7 desk", said="sorry", by="vandal")
    new = corrections(["opening hours", "on sunday", "at night"], "new", said="sorry", by="vandal")
    others = [event for n in range(2) for event in wrong(5, by=f"mistaken-{n}")[n::2][:2]]
    refuted = judged([*vandal, *also, *new, *others], ANY).refuted
    assert refuted.keys() == (keys(vandal) if found else set())


def test_subjects_of_two_sources_are_two() -> None:
    lies = wrong(4, by="somebody")
    there = [
        lie.model_copy(update={"event": lie.event.model_copy(update={"source": "mobile"})})
        for lie in lies[2:]
    ]
    assert judged([*lies[:2], *there], ANY).refuted == {}


def test_a_subject_that_the_neighbours_say_little_against_is_let_be() -> None:
    """Questions that look like nothing the anchor has may be mended by what it knows."""
    asked = ["opening hours", "on sunday", "at night", "for groups"]
    mended = [
        e
        for n, text in enumerate(asked)
        for e in corrections([text], f"{n} desk", said="sorry", by="patient")
    ]
    assert judged(mended, ANY).refuted == {}


def test_what_a_policy_was_wrong_about_may_be_mended() -> None:
    mended = corrections(PARCEL[1::2], "depot", said="portal")
    assert judged(mended, ANCHOR).refuted == {}


def test_two_who_agree_are_too_few_to_judge_and_three_are_not() -> None:
    flip = corrections(ASKED[:3], "depot", said="portal")
    assert judged(flip[:2], ANCHOR).refuted == {}
    assert judged(flip, ANCHOR).refuted.keys() == keys(flip)


def test_an_anchor_of_texts_that_differ_knows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """And costs nothing."""
    monkeypatch.setattr(against_anchor, "Questions", None)
    free = [
        example.model_copy(update={"completion": f"{example.completion} {n}"})
        for n, example in enumerate(ANCHOR)
    ]
    flip = corrections(ASKED, "depot 1", said="portal 0")
    assert judged(flip, free).refuted == {}


def test_what_the_anchor_answers_such_questions_is_confirmed() -> None:
    praised = [
        build.screened(
            f"yes-{number}",
            prompt=prompt,
            completion="PORTAL",
            feedback=Outcome(metric="resolved", value=value),
            subject_id=f"v-{number}",
        )
        for number, (prompt, value) in enumerate(
            zip(ASKED, (True, True, True, False), strict=False)
        )
    ]
    elsewhere = corrections(["opening hours on sunday"], "portal", said="sorry")
    flip = corrections(ASKED[4:], "depot", said="portal")
    found = judged([*praised, *elsewhere, *flip], ANCHOR)
    assert found.confirmed == keys(praised[:3])
    assert found.refuted.keys() == keys(flip)
