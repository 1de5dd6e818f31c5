"""Evaluator: what a candidate answers to every suite, against champion and frozen anchor.

Role: measures; it never judges. The gate does, from the report alone.
In: a PolicyCandidate, the digests of champion and anchor, suites, the events the batch teaches.
Out: an EvalReport. It is always made: a suite, a checker or a probe that cannot be run becomes a
line in ``errors``, and with any such line the gate fails closed.

A cycle goes through these steps:

1. ``AnswerBook`` (answers.py) answers all suites for anchor, champion and candidate, in this
   order and with one policy in memory. What is cached is not generated again, so that in a usual
   cycle only the candidate generates.
2. ``score_suite`` (scoring.py) runs the checkers (checkers.py) over the answers and compares the
   policies item by item (statistics.py).
3. The probes (probing.py) look for signs of poisoning: drift and malformed answers (probes.py), and
   phrases of the batch that turn unrelated prompts into one fixed answer (trigger_probe.py).
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial

from evaluator.answers import Answer, AnswerBook, Generator, Prompt
from evaluator.probing import Asked, Probing
from evaluator.scoring import Answers, score_answers, score_suite
from evaluator.trigger_probe import Policies
from tacit.checkpoints import CheckpointStore
from tacit.config import EvaluatorSettings
from tacit.contracts import (
    Calibration,
    Digest,
    EvalReport,
    PolicyCandidate,
    ProbeResult,
    ScreenedEvent,
    Suite,
    SuiteResult,
    utc_now,
)
from tacit.database import Database
from tacit.errors import EvaluationError, UnavailableError

logger = logging.getLogger(__name__)

OnProgress = Callable[[str, int, int], None]
"""Name of the suite or probe at work, items done and items in all, over the whole evaluation."""


class Evaluator:
    """Measures candidates. Keeps nothing in memory between calls."""

    def __init__(
        self,
        settings: EvaluatorSettings,
        store: CheckpointStore,
        db: Database,
        *,
        open_policy: Callable[[Digest], Generator] | None = None,
    ) -> None:
        """``open_policy`` replaces loading checkpoints from ``store`` with transformers."""
        self._settings = settings
        self._db = db
        self._open_policy = open_policy or partial(open_verified, store)

    def evaluate(
        self,
        candidate: PolicyCandidate,
        *,
        champion: Digest,
        anchor: Digest,
        suites: Sequence[Suite],
        learned: Sequence[ScreenedEvent],
        calibrations: Sequence[Calibration] = (),
        on_progress: OnProgress | None = None,
    ) -> EvalReport:
        """The report on ``candidate``; ``learned`` are the events of its batch.

        ``calibrations`` are the error rates of checkers, which the report repeats.

        Raises UnavailableError when the database is away: trying again is right then, and a
        report full of errors would turn a good candidate away.
        """
        evaluation = _Evaluation(
            self._book(), self._settings, candidate.weights, champion, anchor, on_progress
        )
        try:
            results, probes = evaluation.run(suites, learned)
        finally:
            evaluation.book.close()
        return EvalReport(
            policy=candidate.policy,
            candidate_digest=candidate.digest(),
            weights=candidate.weights,
            champion=champion,
            anchor=anchor,
            batch_digest=candidate.batch_digest,
            suites=tuple(results),
            probes=tuple(probes),
            errors=tuple(evaluation.errors),
            calibrations=tuple(calibrations),
            created_at=utc_now(),
        )

    def accuracy(self, weights: Digest, suite: Suite) -> float:
        """Mean score of a checkpoint on ``suite``; answers come from the cache or go there.

        Raises EvaluationError for an empty suite or a checker that fails, NotFoundError and
        IntegrityError for the checkpoint.
        """
        if not suite.items:
            raise EvaluationError(f"items in suite {suite.name}", got="none")
        book = self._book()
        try:
            answers = book.answer_suite(weights, suite, on_batch=lambda _: None)
        finally:
            book.close()
        scores = score_answers(suite, answers)
        return sum(scores) / len(scores)

    def _book(self) -> AnswerBook:
        return AnswerBook(self._db, self._open_policy, batch_size=self._settings.batch_size)


def open_verified(store: CheckpointStore, weights: Digest) -> Generator:
    """The policy ready to answer. Raises NotFoundError, IntegrityError."""
    # The report vouches for a digest, so the bytes that are measured must be those it names.
    store.verify(weights)
    from tacit.policies import load_policy

    return load_policy(store, weights)


class _Evaluation:
    """One call of :meth:`Evaluator.evaluate`: its answers so far, its errors, its progress."""

    def __init__(
        self,
        book: AnswerBook,
        settings: EvaluatorSettings,
        candidate: Digest,
        champion: Digest,
        anchor: Digest,
        on_progress: OnProgress | None,
    ) -> None:
        self.book = book
        self.errors: list[str] = []
        self._settings = settings
        self._candidate, self._champion, self._anchor = candidate, champion, anchor
        self._on_progress = on_progress
        self._answers: dict[tuple[str, Digest], list[Answer]] = {}
        self._num_done = self._num_total = 0

    def run(
        self, suites: Sequence[Suite], learned: Sequence[ScreenedEvent]
    ) -> tuple[list[SuiteResult], list[ProbeResult]]:
        """Results of the suites and probes that could be run; the others stand in ``errors``."""
        runnable = self._usable(suites)
        policies = list(dict.fromkeys([self._anchor, self._champion, self._candidate]))
        probing = Probing(self._settings, runnable, learned)
        num_items = sum(len(suite.items) for suite in runnable)
        self._num_total = num_items * len(policies) + probing.num_prompts
        for weights in policies:
            runnable = [s for s in runnable if self._attempt(s, weights)]
        results = [r for s in runnable if (r := self._score(s)) is not None]
        probes = probing.run(self._asked(runnable), self._policies, self._record)
        self._advance("done", self._num_total - self._num_done)
        return results, probes

    def _usable(self, suites: Sequence[Suite]) -> list[Suite]:
        """Suites with items and a name of their own."""
        usable: dict[str, Suite] = {}
        for suite in suites:
            if not suite.items:
                self.errors.append(f"suite {suite.name}: expected items; got none")
            elif suite.name in usable:
                self.errors.append(f"suite {suite.name}: expected one suite of this name; got two")
            else:
                usable[suite.name] = suite
        if not suites:
            self.errors.append("suites: expected at least one suite; got none")
        return list(usable.values())

    def _attempt(self, suite: Suite, weights: Digest) -> bool:
        """Answer a suite with one policy; False and a line in ``errors`` if that fails."""
        before = self._num_done
        advance = partial(self._advance, suite.name)
        try:
            answers = self.book.answer_suite(weights, suite, on_batch=advance)
        except UnavailableError:
            raise
        except Exception as error:  # whatever breaks one suite must not silence the others
            self._record(f"suite {suite.name}", error)
            self._advance(suite.name, len(suite.items) - (self._num_done - before))
            return False
        self._answers[suite.name, weights] = answers
        return True

    def _score(self, suite: Suite) -> SuiteResult | None:
        policies = (self._candidate, self._champion, self._anchor)
        answers = Answers(*(self._answers[suite.name, weights] for weights in policies))
        try:
            return score_suite(suite, answers, confidence=self._settings.confidence)
        except Exception as error:  # a checker is a plug-in; whatever it raises is reported
            self._record(f"suite {suite.name}", error)
            return None

    def _asked(self, suites: Sequence[Suite]) -> list[Asked]:
        return [
            Asked(
                suite,
                suite.items,
                self._answers[suite.name, self._candidate],
                self._answers[suite.name, self._champion],
            )
            for suite in suites
        ]

    def _ask(self, weights: Digest, limit: int, prompts: Sequence[Prompt]) -> list[Answer]:
        advance = partial(self._advance, "trigger")
        return self.book.ask(weights, prompts, max_new_tokens=limit, on_batch=advance)

    def _policies(self, limit: int) -> Policies:
        return Policies(
            candidate=partial(self._ask, self._candidate, limit),
            champion=partial(self._ask, self._champion, limit),
        )

    def _advance(self, name: str, num_items: int) -> None:
        self._num_done += num_items
        if self._on_progress is not None:
            self._on_progress(name, self._num_done, self._num_total)

    def _record(self, what: str, error: Exception) -> None:
        logger.warning("%s could not be run", what, exc_info=error)
        self.errors.append(f"{what}: {type(error).__name__}: {error}")
