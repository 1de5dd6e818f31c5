"""From answers to a suite's result: every item checked, then candidate against both baselines."""

from collections.abc import Sequence
from typing import NamedTuple

from evaluator.answers import Answer
from evaluator.checkers import build_checker
from evaluator.statistics import compare
from evaluator.triggers import user_text
from tacit.contracts import ItemResult, Suite, SuiteItem, SuiteResult
from tacit.errors import EvaluationError


class Answers(NamedTuple):
    """What the three policies answered to one suite, in the order of its items."""

    candidate: Sequence[Answer]
    champion: Sequence[Answer]
    anchor: Sequence[Answer]


def score_answers(suite: Suite, answers: Sequence[Answer]) -> list[float]:
    """Scores from 0 to 1 in the order of the items.

    Raises ConfigError for a checker that cannot be built and EvaluationError naming the item on
    which it failed: an answer that was not judged must not pass for a wrong one.
    """
    checker = build_checker(suite.checker)
    scores = []
    for item, answer in zip(suite.items, answers, strict=True):
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


def score_suite(suite: Suite, answers: Answers, *, confidence: float) -> SuiteResult:
    """Accuracies, comparisons and items of one suite. Raises what :func:`score_answers` raises."""
    candidate, champion, anchor = (score_answers(suite, a) for a in answers)
    clusters = [item.cluster for item in suite.items]
    return SuiteResult(
        name=suite.name,
        kind=suite.kind,
        suite_digest=suite.digest(),
        checker=suite.checker,
        num_items=len(suite.items),
        candidate=_mean(candidate),
        champion=_mean(champion),
        anchor=_mean(anchor),
        versus_champion=compare(candidate, champion, clusters, confidence=confidence),
        versus_anchor=compare(candidate, anchor, clusters, confidence=confidence),
        items=tuple(
            _item_result(item, scores, texts)
            for item, scores, texts in zip(
                suite.items,
                zip(candidate, champion, anchor, strict=True),
                zip(*answers, strict=True),
                strict=True,
            )
        ),
    )


def _item_result(
    item: SuiteItem, scores: tuple[float, float, float], texts: tuple[Answer, ...]
) -> ItemResult:
    return ItemResult(
        item_id=item.item_id,
        prompt=user_text(item.prompt),
        expected=item.expected,
        cluster=item.cluster or item.item_id,
        non_negotiable=item.non_negotiable,
        candidate=scores[0],
        champion=scores[1],
        anchor=scores[2],
        candidate_completion=texts[0].text,
        champion_completion=texts[1].text,
        anchor_completion=texts[2].text,
    )


def _mean(scores: Sequence[float]) -> float:
    return sum(scores) / len(scores)
