"""Choosing how much of an update to take: the largest share that is shown to forget nothing.

In: a way to make the variant at each alpha between parent (0) and trained policy (1), the suites.
Out: a VariantChoice with every number it was made from. It never fails for what it measures: where
nothing can be shown, the update is taken as it was trained, and the gate judges.

Suites are asked as for a report (suite_run.py): in looks, until it is decided whether they stand.

The rule, for alphas such as 0.25, 0.5, 0.75, 1:

1. A variant *stands* if on every regression suite the interval of its paired difference to the
   champion lies above ``-evaluator.variant_margin``, and every non-negotiable item is right.
2. If the largest alpha stands, it is taken. Its answers are cached for the report, so a usual
   cycle pays nothing.
3. Else the others are tried from the smallest up, with a fifth of the error probability, until one
   does not stand; the last that stood is taken. If the smallest does not stand, the largest alpha
   is taken, for the gate to turn away.

``from_smallest`` leaves step 2 out, and step 3 tries all with the whole error probability: it asks
more, and takes more where the largest alpha seldom stands, as of a rebuild (docs/adr/0022).

Hold-out suites are not looked at, so that the gate's test on them stays what it says. The gate
tests the regression suites again: trying from the smallest up, each only if the one below stood,
needs no correction for trying several (Hsu & Berger 1999, JASA 94:468-482, on the largest safe
dose). What the second chance of step 3 adds to a false pass is its own error probability at most,
hence the fifth (docs/adr/0007).
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial

from evaluator.answers import AnswerBook, Generator
from evaluator.evaluate import OnProgress, open_verified
from evaluator.statistics import compare
from evaluator.suite_run import Contest, SuiteRun
from tacit.checkpoints import CheckpointStore
from tacit.config import EvaluatorSettings
from tacit.contracts import (
    Comparison,
    Digest,
    PlannedTest,
    Suite,
    SuiteKind,
    SuiteResult,
    VariantChoice,
    VariantResult,
)
from tacit.database import Database
from tacit.errors import UnavailableError

logger = logging.getLogger(__name__)

SECOND_CHANCE = 0.2
"""Share of the gate's error probability that the smaller alphas are tried with."""

Build = Callable[[float], Digest]
"""Makes the variant at an alpha and returns its weights."""


class VariantChooser:
    """Measures variants of one update at a time. Keeps nothing in memory between calls."""

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

    def choose(
        self,
        alphas: Sequence[float],
        *,
        trained: Digest,
        build: Build,
        champion: Digest,
        suites: Sequence[Suite],
        from_smallest: bool = False,
        on_progress: OnProgress | None = None,
    ) -> VariantChoice:
        """The choice among ``alphas``, which rise; ``build`` is called only for those measured.

        Raises UnavailableError when the database is away, and what ``build`` raises for the
        variant that is taken.
        """
        book = AnswerBook(self._db, self._open_policy, batch_size=self._settings.batch_size)
        trial = _Trial(book, self._settings, build, champion, suites, on_progress)
        try:
            taken, reason = trial.run(alphas, from_smallest=from_smallest)
        except UnavailableError:
            raise
        except Exception as error:  # the gate fails closed on what cannot be measured
            logger.warning("variants could not be measured", exc_info=error)
            taken, reason = alphas[-1], f"not measured: {type(error).__name__}: {error}"
        finally:
            book.close()
        return VariantChoice(
            alpha=taken, trained=trained, reason=reason, variants=tuple(trial.results)
        )


class _Trial:
    """One call of :meth:`VariantChooser.choose`: what was measured so far, and its progress."""

    def __init__(
        self,
        book: AnswerBook,
        settings: EvaluatorSettings,
        build: Build,
        champion: Digest,
        suites: Sequence[Suite],
        on_progress: OnProgress | None,
    ) -> None:
        self.results: list[VariantResult] = []
        self._book = book
        self._settings = settings
        self._build = build
        self._champion = champion
        self._compared = [suite for suite in suites if self._decides(suite)]
        self._guards = [suite for suite in suites if suite in self._compared or _forbids(suite)]
        self._on_progress = on_progress

    def run(self, alphas: Sequence[float], *, from_smallest: bool) -> tuple[float, str]:
        """The alpha to take, and why."""
        *smaller, largest = alphas
        if not smaller:
            return largest, "the only share asked for"
        if not self._guards:
            return largest, f"no suite could show a loss below {self._settings.variant_margin:.1%}"
        tried, confidence = alphas, self._settings.confidence
        if not from_smallest:
            if self._measure(largest, confidence=confidence).stands:
                return largest, "the largest share stands"
            tried, confidence = smaller, 1 - (1 - confidence) * SECOND_CHANCE
        stood = None
        for alpha in tried:
            if not self._measure(alpha, confidence=confidence).stands:
                break
            stood = alpha
        if stood is None:
            return largest, "no share stands; the gate judges the update as it was trained"
        return stood, "the largest share that stands, as do all below it"

    def _measure(self, alpha: float, *, confidence: float) -> VariantResult:
        weights = self._build(alpha)
        compared: dict[str, Comparison] = {}
        faults: list[str] = []
        for suite in self._guards:
            found = self._ask(suite, weights, alpha=alpha, confidence=confidence)
            faults += [f"{suite.name}: {item} is wrong" for item in found.non_negotiable_failures]
            if suite in self._compared:
                compared[suite.name] = found.versus_champion
                faults += self._losses(suite, found.versus_champion)
        result = VariantResult(
            alpha=alpha,
            weights=weights,
            stands=not faults,
            why="; ".join(faults) or "keeps what the champion knows",
            versus_champion=compared,
        )
        logger.info("alpha %g %s: %s", alpha, "stands" if result.stands else "falls", result.why)
        self.results.append(result)
        return result

    def _ask(
        self, suite: Suite, weights: Digest, *, alpha: float, confidence: float
    ) -> SuiteResult:
        """A suite that is compared is asked until it is decided, others to the end."""
        contest = Contest(weights, self._champion, self._champion)
        tests = [self._test(suite, confidence)] if suite in self._compared else []
        run = SuiteRun(suite, contest, tests, confidence=confidence)
        num_done = 0

        def advance(num_items: int) -> None:
            nonlocal num_done
            num_done += num_items
            if self._on_progress is not None:
                self._on_progress(f"{suite.name} at alpha {alpha:g}", num_done, len(suite.items))

        # The champion first: its answers are likely to be known.
        policies = [(self._champion, _unnoticed), (weights, advance)]
        while run.is_open:
            for policy, on_batch in policies:
                run.answer(policy, self._book, on_batch=on_batch)
            run.look()
        return run.result(self._book)

    def _test(self, suite: Suite, confidence: float) -> PlannedTest:
        return PlannedTest(
            suite=suite.name,
            baseline="champion",
            threshold=-self._settings.variant_margin,
            alpha=(1 - confidence) / 2,
        )

    def _decides(self, suite: Suite) -> bool:
        """Whether a regression suite is large enough to show a loss within the margin at all."""
        if suite.kind is not SuiteKind.REGRESSION or not suite.items:
            return False
        unchanged = [1.0] * len(suite.items)
        clusters = [item.cluster for item in suite.items]
        found = compare(unchanged, unchanged, clusters, confidence=self._settings.confidence)
        return not self._losses(suite, found)

    def _losses(self, suite: Suite, found: Comparison) -> list[str]:
        margin = self._settings.variant_margin
        if found.ci_low > -margin:
            return []
        return [f"{suite.name}: interval from {found.ci_low:+.1%}, not above {-margin:+.1%}"]


def _forbids(suite: Suite) -> bool:
    return suite.kind is not SuiteKind.HOLDOUT and any(i.non_negotiable for i in suite.items)


def _unnoticed(num_items: int) -> None:
    """Progress of the champion, whose answers mostly come from the cache."""
