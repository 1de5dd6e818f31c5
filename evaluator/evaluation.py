"""One evaluation: suites, look by look, then probes; what cannot be run is written down."""

import logging
from collections.abc import Callable, Sequence
from functools import partial

from evaluator.answers import Answer, AnswerBook, Prompt
from evaluator.asking import Policies, Scorers
from evaluator.canaries import Canary
from evaluator.probing import Probing
from evaluator.suite_run import Contest, SuiteRun
from tacit.config import EvaluatorSettings
from tacit.contracts import Digest, PlannedTest, ProbeResult, ScreenedEvent, Suite, SuiteResult
from tacit.errors import UnavailableError

logger = logging.getLogger(__name__)

OnProgress = Callable[[str, int, int], None]
"""Name of the suite or probe at work, items done and items in all, over the whole evaluation."""


class Evaluation:
    """Its errors, and its progress."""

    def __init__(
        self,
        book: AnswerBook,
        settings: EvaluatorSettings,
        contest: Contest,
        tests: Sequence[PlannedTest],
        on_progress: OnProgress | None,
    ) -> None:
        self.book = book
        self.errors: list[str] = []
        self._settings = settings
        self._contest = contest
        self._tests = tests
        self._on_progress = on_progress
        self._num_done = self._num_total = 0

    def run(
        self,
        suites: Sequence[Suite],
        learned: Sequence[ScreenedEvent],
        earlier: Sequence[ScreenedEvent] = (),
        canaries: Sequence[Canary] = (),
    ) -> tuple[list[SuiteResult], list[ProbeResult]]:
        """Results of the suites and probes that could be run; the others stand in ``errors``.

        Raises UnavailableError when the database is away.
        """
        confidence = self._settings.confidence
        runs = [
            SuiteRun(suite, self._contest, self._tests, confidence=confidence)
            for suite in self._usable(suites)
        ]
        probing = Probing(self._settings, [run.suite for run in runs], learned, earlier, canaries)
        num_items = sum(len(run.suite.items) for run in runs)
        self._num_total = num_items * len(self._contest.policies) + probing.num_prompts
        runs = self._ask(runs)
        results = [run.result(self.book) for run in runs]
        asked = [run.asked for run in runs]
        probes = probing.run(asked, self._policies, self._scorers(), self._record)
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

    def _ask(self, runs: list[SuiteRun]) -> list[SuiteRun]:
        """Look after look at all suites until each is decided; returns those that could be run."""
        policies = self._contest.policies
        while any(run.is_open for run in runs):
            for weights in policies:
                runs = [run for run in runs if not run.is_open or self._answer(run, weights)]
            runs = [run for run in runs if not run.is_open or self._look(run)]
            policies.reverse()  # the next look begins with the policy that is in memory
        return runs

    def _answer(self, run: SuiteRun, weights: Digest) -> bool:
        """Answer a look with one policy; False if that fails."""
        advance = partial(self._advance, run.suite.name)
        return self._attempt(run, partial(run.answer, weights, self.book, on_batch=advance))

    def _look(self, run: SuiteRun) -> bool:
        """Score and compare; False if that fails."""
        return self._attempt(run, run.look)

    def _attempt(self, run: SuiteRun, step: Callable[[], None]) -> bool:
        try:
            step()
        except UnavailableError:
            raise
        except Exception as error:  # whatever breaks one suite must not silence the others
            self._record(f"suite {run.suite.name}", error)
            return False
        return True

    def _ask_prompts(self, weights: Digest, limit: int, prompts: Sequence[Prompt]) -> list[Answer]:
        advance = partial(self._advance, "probes")
        return self.book.ask(weights, prompts, max_new_tokens=limit, on_batch=advance)

    def _policies(self, limit: int) -> Policies:
        return Policies(*(partial(self._ask_prompts, each, limit) for each in self._contest))

    def _scorers(self) -> Scorers:
        advance = partial(self._advance, "log-probabilities")
        score = self.book.score
        return Scorers(*(partial(score, each, on_batch=advance) for each in self._contest))

    def _advance(self, name: str, num_items: int) -> None:
        self._num_done += num_items
        if self._on_progress is not None:
            self._on_progress(name, self._num_done, self._num_total)

    def _record(self, what: str, error: Exception) -> None:
        logger.warning("%s could not be run", what, exc_info=error)
        self.errors.append(f"{what}: {type(error).__name__}: {error}")
