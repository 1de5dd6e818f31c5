"""Answers of policies to prompts: generated in batches, cached for suites, one policy in memory.

A checkpoint is named by its digest and answers greedily, so what it answered to a suite never
changes and is kept in the database. Checkers are not part of that: they run on each evaluation.
"""

import gc
import json
import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from evaluator.tables import EvaluationCacheRow
from tacit.contracts import Digest, Message, Suite, utc_now
from tacit.database import Database
from tacit.errors import EvaluationError

logger = logging.getLogger(__name__)

Prompt = Sequence[Message]


class Generated(Protocol):
    """What the evaluator needs of a completion."""

    @property
    def text(self) -> str:
        """The completion, stripped."""

    @property
    def finish_reason(self) -> str:
        """``stop`` or ``length``."""


class Generator(Protocol):
    """What the evaluator needs of a policy; ``tacit.policies.Policy`` has it."""

    def generate(
        self, prompts: Sequence[Prompt], *, max_new_tokens: int, batch_size: int
    ) -> Sequence[Generated]:
        """Greedy completions, in the order of ``prompts``."""


class Answer(NamedTuple):
    """A completion as it is cached and scored."""

    text: str
    finish_reason: str

    @property
    def is_malformed(self) -> bool:
        """Empty, or cut off by the length limit."""
        return not self.text.strip() or self.finish_reason == "length"


class AnswerBook:
    """Asks policies, one in memory at a time, and remembers what they answered to suites."""

    def __init__(
        self, db: Database, open_policy: Callable[[Digest], Generator], *, batch_size: int
    ) -> None:
        self._db = db
        self._open_policy = open_policy
        self._batch_size = batch_size
        self._held: tuple[Digest, Generator] | None = None

    def answer_suite(
        self, weights: Digest, suite: Suite, *, on_batch: Callable[[int], None]
    ) -> list[Answer]:
        """Answers to the items of ``suite`` in order, from the cache if they are there.

        ``on_batch`` gets the number of items just done. Raises what loading and generating raise.
        """
        cached = self._cached(weights, suite)
        if cached is not None:
            on_batch(len(cached))
            return cached
        prompts = [item.prompt for item in suite.items]
        limit = suite.max_new_tokens
        answers = self.ask(weights, prompts, max_new_tokens=limit, on_batch=on_batch)
        self._remember(weights, suite, answers)
        return answers

    def ask(
        self,
        weights: Digest,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int,
        on_batch: Callable[[int], None],
    ) -> list[Answer]:
        """Answers to ``prompts`` in order, never cached."""
        policy = self._policy(weights)
        # Prompts of like length share a batch, so that little is spent on padding.
        order = sorted(range(len(prompts)), key=lambda i: sum(len(m.content) for m in prompts[i]))
        answers: dict[int, Answer] = {}
        for start in range(0, len(order), self._batch_size):
            indices = order[start : start + self._batch_size]
            batch = [prompts[i] for i in indices]
            answers.update(
                zip(indices, self._ask_batch(policy, batch, max_new_tokens), strict=True)
            )
            on_batch(len(indices))
        return [answers[i] for i in range(len(prompts))]

    def _ask_batch(
        self, policy: Generator, batch: list[Prompt], max_new_tokens: int
    ) -> list[Answer]:
        generated = policy.generate(
            batch, max_new_tokens=max_new_tokens, batch_size=self._batch_size
        )
        if len(generated) != len(batch):
            raise EvaluationError(f"{len(batch)} completions", got=str(len(generated)))
        return [Answer(g.text, g.finish_reason) for g in generated]

    def close(self) -> None:
        """Let go of the policy in memory."""
        if self._held is not None:
            self._held = None
            gc.collect()  # the parts of a model refer to each other

    def _policy(self, weights: Digest) -> Generator:
        if self._held is None or self._held[0] != weights:
            self.close()
            self._held = (weights, self._open_policy(weights))
        return self._held[1]

    def _cached(self, weights: Digest, suite: Suite) -> list[Answer] | None:
        with self._db.reader() as session:
            row = session.get(EvaluationCacheRow, (weights, suite.digest()))
        if row is None:
            return None
        try:
            answers = [
                Answer(entry["text"], entry["finish_reason"])
                for entry in json.loads(row.completions)
            ]
        except (ValueError, KeyError, TypeError) as error:
            logger.warning("cached answers to suite %s are unreadable: %s", suite.name, error)
            return None
        return answers if len(answers) == len(suite.items) else None

    def _remember(self, weights: Digest, suite: Suite, answers: Sequence[Answer]) -> None:
        row = EvaluationCacheRow(
            policy_digest=weights,
            suite_digest=suite.digest(),
            completions=json.dumps([answer._asdict() for answer in answers], ensure_ascii=False),
            created_at=utc_now(),
        )
        with self._db.session() as session:
            session.merge(row)
