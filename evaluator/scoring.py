"""From answers to scores: every item checked."""

from collections.abc import Sequence

from evaluator.answers import Answer
from evaluator.checkers import build_checker
from tacit.contracts import Suite, SuiteItem
from tacit.errors import EvaluationError


def score_answers(suite: Suite, answers: Sequence[Answer]) -> list[float]:
    """Scores of answers to all items of ``suite``. Raises as :func:`score_items`."""
    return score_items(suite, suite.items, answers)


def score_items(suite: Suite, items: Sequence[SuiteItem], answers: Sequence[Answer]) -> list[float]:
    """Scores from 0 to 1 in the order of ``items``, which are some of ``suite``.

    Raises ConfigError for a checker that cannot be built and EvaluationError naming the item on
    which it failed: an answer that was not judged must not pass for a wrong one.
    """
    checker = build_checker(suite.checker)
    scores = []
    for item, answer in zip(items, answers, strict=True):
        try:
            score = answer.score
            if score is None:
                score = checker(answer.text, item.expected)
        except Exception as error:  # a checker is a plug-in; whatever it raises is reported
            raise EvaluationError(
                f"checker {suite.checker.type} to judge item {item.item_id}",
                got=f"{type(error).__name__}: {error}",
            ) from error
        if not 0 <= score <= 1:
            raise EvaluationError(f"a score from 0 to 1 for item {item.item_id}", got=str(score))
        scores.append(score)
    return scores
