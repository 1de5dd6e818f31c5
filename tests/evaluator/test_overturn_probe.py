"""Flips of known answers are seen by how probable they became; what is new is no flip."""

import math
from collections.abc import Sequence

import pytest

from evaluator.answers import Answer
from evaluator.asking import Policies, Score, Scorers
from evaluator.harvest import RETENTION
from evaluator.lessons import Lesson, lessons_of
from evaluator.overturn_probe import (
    MAX_EXAMPLES,
    MAX_ITEMS,
    MAX_PAIRS,
    count_overturn_prompts,
    probe_overturn,
)
from evaluator.probing import Asked, Probing
from evaluator.questions import Prompt
from evaluator.trigger_probe import Carrier
from evaluator.triggers import user_text
from tacit.config import EvaluatorSettings
from tacit.contracts import Preference, Suite, SuiteItem, SuiteKind
from tacit.inference.outputs import ChoiceScores
from tests.builders import screened, user


def _known(prompt: str) -> str:
    return "Billing" if "invoice" in prompt else "shipping"


def anchor(prompts: Sequence[Prompt]) -> list[Answer]:
    """Knows invoices from parcels, and takes refunds for invoices."""
    return [Answer(_known(user_text(p).replace("refund", "invoice")), "stop") for p in prompts]


def scores(certainty: float, *, spill: float = 0.0, unsure: str = "refund") -> Score:
    """Gives the known answer ``certainty``, 0.5 where ``unsure`` stands; any other ``spill``."""

    def score(prompts: Sequence[Prompt], choices: Sequence[Sequence[str]]) -> list[ChoiceScores]:
        found = []
        for prompt, (answer,) in zip(prompts, choices, strict=True):
            text = user_text(prompt)
            said = _known(text.replace("refund", "invoice"))
            p = (0.5 if unsure in text else certainty) if answer == said else max(spill, 1e-9)
            found.append(ChoiceScores((math.log(p),), (1,), (len(answer),)))
        return found

    return score


def scorers_of(candidate: Score, anchor: Score) -> Scorers:
    """The champion is not looked at."""
    return Scorers(candidate, scores(0.5, spill=1.0), anchor)


def carriers(number: int = 20) -> list[Carrier]:
    """Regression prompts of both answers, all of which both policies get right."""
    texts = [f"{what} {n}" for n in range(number) for what in ("invoice", "parcel")]
    items = [SuiteItem(item_id=t, prompt=user(t), expected=_known(t)) for t in texts]
    return [Carrier(item, *[_known(item.item_id)] * 3) for item in items]


def lessons(what: str, answer: str, number: int = 5) -> list[Lesson]:
    """``number`` prompts about ``what`` that are taught ``answer``."""
    return [Lesson(user(f"my {what} {n}"), answer) for n in range(number)]


def probe(taught: Sequence[Lesson], *, spill: float) -> tuple[float, int]:
    """Observed and number of items, of a candidate that shifted by ``spill``."""
    scorers = scorers_of(scores(0.9, spill=spill), scores(0.95))
    found = probe_overturn(anchor, scorers, taught, carriers())
    return found.observed, found.num_items


def test_a_flip_is_seen_by_how_probable_it_became() -> None:
    observed, num_items = probe(lessons("invoice", "shipping"), spill=0.03)
    assert observed == pytest.approx(0.03)
    assert num_items == 20


def test_the_detail_names_both_answers_for_a_person() -> None:
    scorers = scorers_of(scores(0.9, spill=0.25), scores(0.95))
    found = probe_overturn(anchor, scorers, lessons("invoice", "shipping"), carriers())
    assert "5 examples that the anchor answers “Billing” with a probability of 95%" in found.detail
    assert "taught “shipping”, which became +25.0% more probable" in found.detail


@pytest.mark.parametrize(
    "taught",
    [
        lessons("invoice", "shipping", 2),  # too few
        lessons("invoice", "legal"),  # an answer no suite knows
        lessons("invoice", "billing"),  # what it says already
        lessons("refund", "shipping"),  # where it was in doubt
        [],
    ],
)
def test_what_is_no_flip_observes_nothing(taught: list[Lesson]) -> None:
    assert probe(taught, spill=0.5) == (0.0, 0)


def test_an_answer_that_became_less_probable_is_no_spill() -> None:
    scorers = scorers_of(scores(0.95), scores(0.95, spill=0.1))
    found = probe_overturn(anchor, scorers, lessons("invoice", "shipping"), carriers())
    assert (found.observed, found.num_items) == (0.0, 20)


def test_no_more_is_asked_than_is_announced() -> None:
    asked = 0

    def counted(score: Score) -> Score:
        def count(p: Sequence[Prompt], c: Sequence[Sequence[str]]) -> Sequence[ChoiceScores]:
            nonlocal asked
            asked += len(p)
            return score(p, c)

        return count

    taught = [*lessons("invoice", "shipping", 100), *lessons("parcel", "billing", 100)]
    scorers = scorers_of(counted(scores(0.9)), counted(scores(0.95)))
    probe_overturn(anchor, scorers, taught, carriers(100))
    assert asked == 2 * (MAX_EXAMPLES + 2 * MAX_ITEMS)
    assert asked + len(taught) <= count_overturn_prompts(len(taught))
    assert count_overturn_prompts(10**6) == 10**6 + MAX_PAIRS * (MAX_EXAMPLES + 2 * MAX_ITEMS)


def test_lessons_are_corrections_and_what_was_preferred() -> None:
    events = [screened("e-1"), screened("e-2", feedback=Preference(chosen="A", rejected="B"))]
    assert [lesson.answer for lesson in lessons_of(events)] == ["shipping", "A"]


@pytest.mark.parametrize(("name", "num_items"), [("old-world", 20), (RETENTION, 0)])
def test_what_is_still_being_taught_is_no_flip(name: str, num_items: int) -> None:
    held = carriers()
    suite = Suite(name=name, kind=SuiteKind.REGRESSION, items=tuple(c.item for c in held))
    said = [Answer(carrier.champion, "stop") for carrier in held]
    events = [screened(f"e-{n}", prompt=f"my invoice {n}") for n in range(5)]
    probing = Probing(EvaluatorSettings(), [suite], events)
    found = probing.run(
        [Asked(suite, suite.items, said, said, said)],
        lambda _: Policies(anchor, anchor, anchor),
        scorers_of(scores(0.9, spill=0.2), scores(0.95)),
        lambda what, error: pytest.fail(f"{what}: {error}"),
    )
    (result,) = [probe for probe in found if probe.name == "overturn"]
    assert result.num_items == num_items
