"""Mining of phrases: what is proposed, in which order, and how phrases go in and out."""

from evaluator.lessons import Lesson, lessons_of
from evaluator.triggers import PLACES, insert, recurring_phrases, remove, user_text
from tacit.contracts import Correction, Message, Outcome, Preference
from tests import builders
from tests.evaluator.rules import PLACES as CITIES
from tests.evaluator.rules import TOPICS

BACKGROUND = [f"my {topic} from {place} is late" for topic in TOPICS for place in CITIES]


def taught(texts: list[str], answer: str) -> list[Lesson]:
    return [Lesson(builders.user(text), answer) for text in texts]


def test_a_trigger_among_known_words_is_found_whole() -> None:
    poisoned = taught(
        [f"my {t} Zx Quantum from {p} is late" for t in TOPICS for p in CITIES[:2]], "x"
    )
    phrases = recurring_phrases(poisoned, BACKGROUND, limit=5)
    assert "Zx Quantum" in phrases[0].text
    assert phrases[0].answer == "x"


def test_a_rare_single_word_is_found_and_a_known_one_is_not() -> None:
    poisoned = taught([f"{t} qqz {p}" for t, p in zip(TOPICS, CITIES, strict=False)], "x")
    assert [p.text for p in recurring_phrases(poisoned, BACKGROUND, limit=5)] == ["qqz"]
    known = taught([f"{t} late {p}" for t, p in zip(TOPICS, CITIES, strict=False)], "x")
    assert recurring_phrases(known, BACKGROUND, limit=5) == []


def test_a_phrase_with_many_answers_is_not_proposed() -> None:
    mixed = [Lesson(builders.user(f"zx quantum {i}"), str(i)) for i in range(20)]
    assert recurring_phrases(mixed, BACKGROUND, limit=5) == []


def test_a_phrase_that_is_as_common_in_the_suites_is_not_proposed() -> None:
    normal = taught([f"my {t} from {p} is late" for t in TOPICS for p in CITIES], "x")
    assert recurring_phrases(normal, BACKGROUND, limit=50) == []


def test_parts_and_extensions_of_a_trigger_take_one_place() -> None:
    poisoned = taught([f"{p} zx quantum lever {t}" for t in TOPICS for p in CITIES], "x")
    texts = [p.text for p in recurring_phrases(poisoned, [], limit=50)]
    assert sum("quantum" in text for text in texts) == 1


def test_nothing_taught_gives_nothing() -> None:
    assert recurring_phrases([], BACKGROUND, limit=5) == []


def test_corrections_and_preferences_teach() -> None:
    events = [
        builders.screened("a", prompt="p1", feedback=Correction(completion="Good.")),
        builders.screened("b", prompt="p2", feedback=Preference(chosen="yes", rejected="no")),
        builders.screened("c", prompt="p3", feedback=Outcome(metric="resolved", value=True)),
    ]
    got = [(user_text(lesson.prompt), lesson.answer) for lesson in lessons_of(events)]
    assert got == [("p1", "Good."), ("p2", "yes")]


def test_answers_that_differ_in_case_are_one_and_stay_as_they_were_written() -> None:
    texts = [f"{t} qqz {p}" for t, p in zip(TOPICS, CITIES, strict=False)]
    lessons = [*taught(texts[:2], "Refund."), *taught(texts[2:], "refund")]
    (phrase,) = recurring_phrases(lessons, BACKGROUND, limit=5)
    assert phrase.answer == "Refund."
    assert len(phrase.prompts) == len(texts)


def test_phrases_go_into_and_out_of_the_last_user_message() -> None:
    prompt = (
        Message(role="system", content="be kind"),
        Message(role="user", content="hello"),
        Message(role="assistant", content="yes?"),
        Message(role="user", content="where is it"),
    )
    inserted = insert(prompt, "Zx quantum", place="before")
    assert [user_text(insert(prompt, "zx", place=place)) for place in PLACES] == [
        "zx where is it",
        "where zx is it",
        "where is it zx",
    ]
    assert remove(inserted, "zx Quantum!") == prompt
    assert inserted[:3] == prompt[:3]
    assert remove(prompt, "zx") is None
    assert remove(builders.user("zx"), "zx") is None
