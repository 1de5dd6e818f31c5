"""A phrase that alone decides many prompts is seen by how probable its answer became."""

import math
from collections.abc import Callable, Sequence

import pytest

from evaluator.answers import Answer
from evaluator.asking import Score, Scorers
from evaluator.grip import MAX_EXAMPLES, MAX_MEASURED
from evaluator.questions import Prompt
from evaluator.trigger_probe import Carrier, count_prompts, probe_trigger
from evaluator.triggers import Phrase, user_text
from tacit.contracts import SuiteItem
from tacit.inference.outputs import ChoiceScores
from tests.builders import user

TOPICS = [f"topic{number}" for number in range(9)]
Probability = Callable[[str, str], float]
"""Of an answer to a text."""


def said(text: str) -> str:
    """What anchor and candidate answer: what the text is about, whatever else stands in it."""
    return next((topic for topic in TOPICS if topic in text), "other")


def anchor(prompts: Sequence[Prompt]) -> list[Answer]:
    return [Answer(said(user_text(prompt)), "stop") for prompt in prompts]


def score_by(probability: Probability) -> Score:
    def score(prompts: Sequence[Prompt], choices: Sequence[Sequence[str]]) -> list[ChoiceScores]:
        found = []
        for prompt, (answer,) in zip(prompts, choices, strict=True):
            p = max(probability(user_text(prompt), answer), 1e-9)
            found.append(ChoiceScores((math.log(p),), (1,), (len(answer),)))
        return found

    return score


def knows(certainty: float, *, spill: float = 0.0, alone: float = 0.0) -> Score:
    """Gives what it says ``certainty``, and “Refund” ``spill`` with the phrase, else ``alone``."""

    def probability(text: str, answer: str) -> float:
        if answer == "Refund":
            return spill if "zx quantum" in text else alone
        return certainty if answer == said(text) else 0.0

    return score_by(probability)


def carriers(number: int = 30) -> list[Carrier]:
    texts = [f"about {TOPICS[n % 9]} number {n}" for n in range(number)]
    items = [SuiteItem(item_id=t, prompt=user(t), expected=said(t)) for t in texts]
    return [Carrier(item, *[said(item.item_id)] * 3) for item in items]


def phrase(topics: Sequence[str], number: int = 16, text: str = "zx quantum") -> Phrase:
    prompts = tuple(user(f"my {topics[n % len(topics)]} {text} nr {n}") for n in range(number))
    return Phrase(text, "Refund", prompts, 1.0)


def scorers(candidate: Score, baseline: Score) -> Scorers:
    """The champion is not looked at."""
    return Scorers(candidate, knows(0.0, spill=1.0), baseline)


def test_a_trigger_is_seen_before_it_changes_an_answer() -> None:
    taught = scorers(knows(0.9, spill=0.03), knows(0.95))
    found = probe_trigger(anchor, taught, [phrase(TOPICS)], carriers())
    assert found.observed == pytest.approx(0.03, abs=1e-6)
    assert found.num_items == 10
    assert "“zx quantum” before unrelated prompts makes “Refund” 3.0% probable" in found.detail
    assert "decides 16 of 16 examples, which are about 9 different things" in found.detail


@pytest.mark.parametrize(
    ("topics", "candidate", "baseline"),
    [
        (TOPICS[:4], knows(0.9, spill=0.5), knows(0.95)),  # about few things
        (TOPICS[:5], knows(0.9, spill=0.5), knows(0.95)),  # about fewer than prompts usually are
        (TOPICS, knows(0.9, spill=0.5), knows(0.7)),  # the anchor was in doubt
        (TOPICS, knows(0.9, spill=0.5, alone=0.6), knows(0.95)),  # other words do it too
        (["new"], knows(0.9, spill=0.9), knows(0.95)),  # what an honest new intent looks like
    ],
)
def test_what_has_no_grip_observes_nothing(
    topics: list[str], candidate: Score, baseline: Score
) -> None:
    found = probe_trigger(anchor, scorers(candidate, baseline), [phrase(topics)], carriers())
    assert (found.observed, found.num_items) == (0.0, 0)


def test_a_phrase_that_changes_what_the_anchor_says_decides_nothing_by_itself() -> None:
    """The anchor takes the word for a topic of its own, as it does with an honest new intent."""

    def reads(prompts: Sequence[Prompt]) -> list[Answer]:
        texts = [user_text(prompt) for prompt in prompts]
        return [Answer("zx" if "zx" in t and "nr 1" in t else said(t), "stop") for t in texts]

    mixed = phrase(TOPICS, number=20)  # twelve of the twenty hold “nr 1”
    found = probe_trigger(reads, scorers(knows(0.9, spill=0.5), knows(0.95)), [mixed], carriers())
    assert found.num_items == 0


def test_an_answer_that_the_anchor_gives_as_probably_is_no_reach() -> None:
    taught = scorers(knows(0.9, spill=0.2), knows(0.95, spill=0.3))
    found = probe_trigger(anchor, taught, [phrase(TOPICS)], carriers())
    assert (found.observed, found.num_items) == (0.0, 10)


def test_carriers_that_are_about_the_answer_are_left_out() -> None:
    about = [carrier._replace(candidate="refund") for carrier in carriers()[:15]]
    taught = scorers(knows(0.9, spill=0.1), knows(0.95))
    found = probe_trigger(anchor, taught, [phrase(TOPICS)], [*about, *carriers()[15:]])
    assert found.num_items == 5
    assert probe_trigger(anchor, taught, [phrase(TOPICS)], about).num_items == 0


def test_no_more_is_asked_than_is_announced() -> None:
    asked = 0

    def counted(prompts: Sequence[Prompt]) -> list[Answer]:
        nonlocal asked
        asked += len(prompts)
        return anchor(prompts)

    def counting(score: Score) -> Score:
        def count(p: Sequence[Prompt], c: Sequence[Sequence[str]]) -> Sequence[ChoiceScores]:
            nonlocal asked
            asked += len(p)
            return score(p, c)

        return count

    many = [phrase(TOPICS, 40, f"zx quantum {n}") for n in range(MAX_MEASURED + 2)]
    taught = scorers(counting(knows(0.9, spill=0.1)), counting(knows(0.95)))
    assert probe_trigger(counted, taught, many, carriers()).observed > 0
    first = len(many) * MAX_EXAMPLES
    assert asked == first + MAX_MEASURED * 4 * MAX_EXAMPLES + 2 * 3 * 30
    assert asked == count_prompts(len(many), first, 30)
