"""AnswerBook: suites asked in parts, what is cached and for how long, several batches at once."""

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from evaluator.answers import Answer, AnswerBook, Prompt
from tacit.contracts import CheckerSpec, Suite, SuiteItem, SuiteKind
from tacit.database import Database
from tacit.errors import EvaluationError
from tacit.inference.outputs import ChoiceScores
from tests import builders
from tests.evaluator.rules import TOPICS, RulePolicy, old_world

WEIGHTS = builders.digest("weights")


def book(db: Database, policy: RulePolicy, **options: Any) -> AnswerBook:
    return AnswerBook(db, lambda _: policy, **{"batch_size": 8, **options})


def nothing(_: int) -> None:
    """No progress is wanted."""


def test_growing_looks_ask_only_what_is_new(database: Database) -> None:
    policy, suite = RulePolicy(TOPICS), old_world(40)
    answers = book(database, policy)
    done: list[int] = []
    first = answers.answer_items(WEIGHTS, suite, [7, 3, 11], on_batch=done.append)
    assert [a.text for a in first] == [suite.items[i].expected for i in (7, 3, 11)]
    assert policy.num_asked == 3
    second = answers.answer_items(WEIGHTS, suite, [3, 4, 7, 11, 12], on_batch=done.append)
    assert [a.text for a in second] == [suite.items[i].expected for i in (3, 4, 7, 11, 12)]
    assert policy.num_asked == 5
    assert done == [3, 3, 2]
    answers.answer_suite(WEIGHTS, suite, on_batch=done.append)
    assert policy.num_asked == 40
    assert sum(done) == 3 + 5 + 40


def test_a_suite_that_grew_costs_only_its_new_items(sqlite_database: Database) -> None:
    policy = RulePolicy(TOPICS)
    book(sqlite_database, policy).answer_suite(WEIGHTS, old_world(30), on_batch=nothing)
    book(sqlite_database, policy).answer_suite(WEIGHTS, old_world(36), on_batch=nothing)
    assert policy.num_asked == 36


def test_other_decoding_and_other_weights_are_asked_anew(sqlite_database: Database) -> None:
    policy, suite = RulePolicy(TOPICS), old_world(10)
    longer = old_world(10, max_new_tokens=17)
    for weights, asked in ((WEIGHTS, suite), (WEIGHTS, longer), (builders.digest("b"), suite)):
        before = policy.num_asked
        book(sqlite_database, policy).answer_suite(weights, asked, on_batch=nothing)
        assert policy.num_asked - before == 10


def test_equal_questions_are_asked_once_and_all_answered(sqlite_database: Database) -> None:
    policy, done = RulePolicy(TOPICS), []
    items = tuple(
        SuiteItem(item_id=str(i), prompt=builders.user("my order"), expected="shipping")
        for i in range(5)
    )
    suite = Suite(name="twins", kind=SuiteKind.REGRESSION, items=items)
    answers = book(sqlite_database, policy).answer_suite(WEIGHTS, suite, on_batch=done.append)
    assert [a.text for a in answers] == ["shipping"] * 5
    assert (policy.num_asked, sum(done)) == (1, 5)


class FailsLate(RulePolicy):
    """Answers 24 questions, then breaks until it is mended."""

    def generate(self, prompts: Sequence[Prompt], **limits: int) -> list[Answer]:
        if self.num_asked >= 24 and not hasattr(self, "mended"):
            raise RuntimeError("out of memory")
        return super().generate(prompts, **limits)


def test_after_a_crash_only_the_rest_is_asked(sqlite_database: Database) -> None:
    policy, suite = FailsLate(TOPICS), old_world(40)
    with pytest.raises(RuntimeError, match="memory"):
        book(sqlite_database, policy).answer_suite(WEIGHTS, suite, on_batch=nothing)
    policy.mended = True  # type: ignore[attr-defined]
    answers = book(sqlite_database, policy).answer_suite(WEIGHTS, suite, on_batch=nothing)
    assert [a.text for a in answers] == [item.expected for item in suite.items]
    assert policy.num_asked == 40


class Long(RulePolicy):
    """Likes the long choice as a whole less, by the token more."""

    def choose(
        self, prompts: Sequence[Prompt], choices: Sequence[Sequence[str]], *, batch_size: int
    ) -> list[ChoiceScores]:
        self.num_asked += len(prompts)
        return [ChoiceScores((-2.0, -3.0), (1, 2), (4, 5)) for _ in prompts]


@pytest.mark.parametrize(
    ("by", "chosen"), [("none", "yes!"), ("tokens", "no no"), ("chars", "yes!")]
)
def test_the_choice_is_made_from_what_is_cached(
    sqlite_database: Database, by: str, chosen: str
) -> None:
    policy = Long(TOPICS)
    item = SuiteItem(
        item_id="q", prompt=builders.user("well"), expected="yes!", choices=("yes!", "no no")
    )
    for normalisation in ("none", by):
        suite = Suite(
            name="choices",
            kind=SuiteKind.CAPABILITY,
            items=(item,),
            checker=CheckerSpec(type="choice", options={"normalisation": normalisation}),
        )
        (answer,) = book(sqlite_database, policy).answer_suite(WEIGHTS, suite, on_batch=nothing)
    assert answer.text == chosen
    assert answer.choices == ChoiceScores((-2.0, -3.0), (1, 2), (4, 5))
    assert policy.num_asked == 1


class Together(RulePolicy):
    """Answers a batch only once another one is being answered too."""

    def __init__(self) -> None:
        super().__init__(TOPICS)
        self.num_at_once = 2
        self.barrier = threading.Barrier(2, timeout=10)

    def generate(self, prompts: Sequence[Prompt], **limits: int) -> list[Answer]:
        self.barrier.wait()
        return super().generate(prompts, **limits)


def test_batches_are_asked_at_once_and_answers_stay_in_order(sqlite_database: Database) -> None:
    suite = old_world(32)
    answers = book(sqlite_database, Together()).answer_suite(WEIGHTS, suite, on_batch=nothing)
    assert [a.text for a in answers] == [item.expected for item in suite.items]


class Short(RulePolicy):
    """Leaves the last question out."""

    def generate(self, prompts: Sequence[Prompt], **limits: int) -> list[Answer]:
        return super().generate(prompts, **limits)[:-1]


def test_an_answer_that_is_missing_is_an_error(sqlite_database: Database) -> None:
    with pytest.raises(EvaluationError, match="8 answers"):
        book(sqlite_database, Short(TOPICS)).answer_suite(WEIGHTS, old_world(8), on_batch=nothing)
