"""Evaluator: what a candidate answers to every suite, against champion and frozen anchor.

Role: measures; it never judges. The gate does, from the report alone.
In: a PolicyCandidate, the digests of champion and anchor, suites, the events the batch teaches.
Out: an EvalReport. It is always made: a suite, a checker or a probe that cannot be run becomes a
line in ``errors``, and with any such line the gate fails closed.

A cycle goes through these steps:

1. All suites are asked in growing looks (suite_run.py, sequential.py). ``AnswerBook`` (answers.py)
   answers a look for anchor, champion and candidate, with one policy in memory. What is cached is
   not generated again, so that in a usual cycle only the candidate generates.
2. After each look the checkers (scoring.py, checkers.py) score the answers, and the policies are
   compared item by item (statistics.py). A suite on which the gate's tests are decided is done.
3. The probes (probing.py) look for signs of poisoning, of reward hacking and of remembering what
   should not be remembered.
"""

from collections.abc import Callable, Sequence
from functools import partial

from evaluator.answers import AnswerBook, Generator
from evaluator.canaries import Canary
from evaluator.evaluation import Evaluation, OnProgress
from evaluator.history import changed_suites
from evaluator.scoring import score_answers
from evaluator.suite_run import Contest
from tacit.checkpoints import CheckpointStore
from tacit.config import EvaluatorSettings
from tacit.contracts import (
    Calibration,
    Digest,
    EvalReport,
    PlannedTest,
    PolicyCandidate,
    ReportOutline,
    ScreenedEvent,
    Suite,
    utc_now,
)
from tacit.database import Database
from tacit.errors import EvaluationError

__all__ = ["Evaluator", "OnProgress", "open_verified"]


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
        earlier: Sequence[ScreenedEvent] = (),
        calibrations: Sequence[Calibration] = (),
        canaries: Sequence[Canary] = (),
        tests: Sequence[PlannedTest] = (),
        previous: ReportOutline | None = None,
        on_progress: OnProgress | None = None,
    ) -> EvalReport:
        """The report on ``candidate``; ``learned`` are the events of its batch.

        ``earlier`` are those of batches that taught the champion: what comes in drops adds up.

        ``calibrations`` are the error rates of checkers, which the report repeats; ``canaries``
        are planted in feedback, and how well the candidate remembers them is a probe.

        ``tests`` are what the gate will decide on: a suite is asked until they are decided, and
        to the end where there are none. ``previous`` is the report of the policy line before.

        Raises UnavailableError when the database is away: trying again is right then, and a
        report full of errors would turn a good candidate away.
        """
        contest = Contest(candidate.weights, champion, anchor)
        evaluation = Evaluation(self._book(), self._settings, contest, tests, on_progress)
        try:
            results, probes = evaluation.run(suites, learned, earlier, canaries)
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
            tests=tuple(tests),
            previous=None if previous is None else previous.report_digest,
            changed_suites=changed_suites(previous, suites),
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


def open_verified(store: CheckpointStore, weights: Digest, device: str = "cpu") -> Generator:
    """The policy ready to answer. Raises NotFoundError, IntegrityError."""
    # The report vouches for a digest, so the bytes that are measured must be those it names.
    store.verify(weights)
    from tacit.policies import load_policy

    return load_policy(store, weights, device=device)
