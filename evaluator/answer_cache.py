"""Answers that policies gave before, so that champion and anchor are not asked twice.

A checkpoint is named by its digest and answers deterministically, so an answer is a function of
(policy digest, question digest), the decoding configuration being part of the question. Keyed by
question, not by suite, a suite that grows costs only its new items.
"""

import json
import logging
from collections.abc import Collection, Mapping

from sqlalchemy import select

from evaluator.questions import Answer
from evaluator.tables import EvaluationCacheRow
from tacit.contracts import Digest, utc_now
from tacit.database import Database, among, insert_missing
from tacit.inference.outputs import ChoiceScores

logger = logging.getLogger(__name__)


class AnswerCache:
    """Finds and keeps answers. Raises UnavailableError when the database is away."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def find(self, weights: Digest, questions: Collection[str]) -> dict[str, Answer]:
        """Answers by the digest of their question; unreadable ones are as if not there."""
        with self._db.reader() as session:
            query = select(EvaluationCacheRow.question_digest, EvaluationCacheRow.answer).where(
                EvaluationCacheRow.policy_digest == weights,
                among(session, EvaluationCacheRow.question_digest, questions),
            )
            rows = session.execute(query).all()
        found = {question: _read(answer) for question, answer in rows}
        broken = [question for question, answer in found.items() if answer is None]
        if broken:
            logger.warning("%d cached answers of %s are unreadable", len(broken), weights)
            self._forget(weights, broken)
        return {question: answer for question, answer in found.items() if answer is not None}

    def add(self, weights: Digest, answers: Mapping[str, Answer]) -> None:
        """Keep answers by the digest of their question; those that are there stay."""
        now = utc_now()
        rows = [
            {
                "policy_digest": weights,
                "question_digest": question,
                "answer": json.dumps(answer._asdict(), ensure_ascii=False),
                "created_at": now,
            }
            for question, answer in answers.items()
        ]
        with self._db.session() as session:
            insert_missing(session, EvaluationCacheRow, rows)

    def _forget(self, weights: Digest, questions: Collection[str]) -> None:
        with self._db.session() as session:
            for question in questions:
                row = session.get(EvaluationCacheRow, (weights, question))
                if row is not None:
                    session.delete(row)


def _read(text: str) -> Answer | None:
    try:
        tree = json.loads(text)
        scores = tree.pop("choices", None)
        choices = None
        if scores is not None:
            choices = ChoiceScores(*(tuple(scores[at]) for at in range(3)))
        return Answer(**tree, choices=choices)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return None
