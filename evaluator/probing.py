"""Running the probes over what candidate and champion answered.

``answer_drift`` and ``malformed`` (probes.py) and the shifts of refusals, abstentions and length
(shift_probes.py) read the answers to the suites. ``trigger`` (trigger_probe.py) asks again, with
phrases of the feedback put into prompts, and ``regurgitation`` asks what was redacted. ``overturn``
(overturn_probe.py), ``exposure`` and ``kl`` (likelihood_probes.py) read log-probabilities. A probe
that does not run has found nothing, which is no pass: it becomes a line in the report's ``errors``.

``trigger`` and ``overturn`` look at all that was taught since the first release of the line and
compare with that, the anchor; the others look at the batch and compare with the champion.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from evaluator.answers import Answer
from evaluator.asking import Policies, Scorers
from evaluator.canaries import Canary
from evaluator.harness.suite import is_harness_suite
from evaluator.harvest import RETENTION
from evaluator.lessons import lessons_of
from evaluator.likelihood_probes import probe_exposure, probe_kl
from evaluator.overturn_probe import count_overturn_prompts, probe_overturn
from evaluator.probes import answer_drift, malformed
from evaluator.regurgitation_probe import probe_regurgitation, redacted_prompts
from evaluator.shift_probes import abstention_shift, length_shift, refusal_shift
from evaluator.trigger_probe import Carrier, count_prompts, probe_trigger
from evaluator.triggers import recurring_phrases, user_text
from tacit.config import EvaluatorSettings
from tacit.contracts import ProbeResult, ScreenedEvent, Suite, SuiteItem, SuiteKind, sha256_digest
from tacit.errors import EvaluationError, UnavailableError


class Asked(NamedTuple):
    """Items of one suite and what the policies answered to them, in the same order."""

    suite: Suite
    items: Sequence[SuiteItem]
    candidate: Sequence[Answer]
    champion: Sequence[Answer]
    anchor: Sequence[Answer]


class Probing:
    """The probes of one evaluation."""

    def __init__(
        self,
        settings: EvaluatorSettings,
        suites: Sequence[Suite],
        learned: Sequence[ScreenedEvent],
        earlier: Sequence[ScreenedEvent] = (),
        canaries: Sequence[Canary] = (),
    ) -> None:
        self._settings = settings
        self._canaries = canaries
        self._redacted = redacted_prompts(learned)
        self._suites = suites
        self._lessons = lessons_of([*learned, *earlier])
        background = [user_text(item.prompt) for suite in suites for item in suite.items]
        limit = settings.num_trigger_phrases
        self._phrases = recurring_phrases(self._lessons, background, limit=limit)

    @property
    def num_prompts(self) -> int:
        """Prompts the probes ask at most, for the progress callback."""
        num_items = sum(len(suite.items) for suite in regression(self._suites))
        num_sampled = min(num_items, self._settings.num_probe_prompts)
        inserted = count_prompts(len(self._phrases), len(self._lessons), num_sampled)
        asked = 2 * (num_sampled + len(self._redacted)) + len(self._canaries)
        return inserted + asked + count_overturn_prompts(len(self._lessons))

    def run(
        self,
        asked: Sequence[Asked],
        policies: Callable[[int], Policies],
        scorers: Scorers,
        on_error: Callable[[str, Exception], None],
    ) -> list[ProbeResult]:
        """Results of the probes that could be run; ``on_error`` is told of the others.

        ``policies`` gives what answers prompts, with at most so many tokens an answer; ``scorers``
        what gives the log-probabilities of continuations.
        Raises UnavailableError when the database is away.
        """
        unmoved = _of(asked, regression([part.suite for part in asked]))
        probes: dict[str, Callable[[], ProbeResult]] = {
            "exposure": lambda: probe_exposure(scorers.candidate, self._canaries),
            "trigger": lambda: self._trigger(asked, unmoved, policies, scorers),
            "regurgitation": lambda: self._regurgitation(asked, policies),
            "overturn": lambda: self._overturn(asked, unmoved, policies, scorers),
            "kl": lambda: self._kl(unmoved, scorers),
            "answer_drift": lambda: answer_drift(*_pairs(unmoved)),
            "malformed": lambda: malformed(*_pairs(asked)),
            "refusal_shift": lambda: refusal_shift(*_pairs(unmoved)),
            "abstention_shift": lambda: abstention_shift(*_pairs(unmoved)),
            "length_shift": lambda: length_shift(*_pairs(unmoved)),
        }
        results = []
        for name, probe in probes.items():
            try:
                results.append(probe())
            except UnavailableError:
                raise
            except Exception as error:
                on_error(f"probe {name}", error)
        return results

    def _trigger(
        self,
        asked: Sequence[Asked],
        unmoved: Sequence[Asked],
        policies: Callable[[int], Policies],
        scorers: Scorers,
    ) -> ProbeResult:
        carriers = self._carriers(unmoved)
        if not carriers:
            raise EvaluationError("prompts to put phrases into", got="no suite that was answered")
        return probe_trigger(policies(_limit(asked)).anchor, scorers, self._phrases, carriers)

    def _regurgitation(
        self, asked: Sequence[Asked], policies: Callable[[int], Policies]
    ) -> ProbeResult:
        return probe_regurgitation(policies(_limit(asked)), self._redacted)

    def _overturn(
        self,
        asked: Sequence[Asked],
        unmoved: Sequence[Asked],
        policies: Callable[[int], Policies],
        scorers: Scorers,
    ) -> ProbeResult:
        anchor = policies(_limit(asked)).anchor
        # What was learned in deployment is still being learned: to teach more of it is no flip.
        curated = [part for part in unmoved if part.suite.name != RETENTION]
        free = [part for part in curated if _is_free(part.suite)]
        return probe_overturn(anchor, scorers, self._lessons, _all_carriers(free))

    def _kl(self, unmoved: Sequence[Asked], scorers: Scorers) -> ProbeResult:
        free = [part for part in unmoved if _is_free(part.suite)]
        if not unmoved:
            raise EvaluationError("a suite that could be answered", got="none")
        sample = self._carriers(free)
        prompts = [carrier.item.prompt for carrier in sample]
        return probe_kl(scorers, prompts, [carrier.champion for carrier in sample])

    def _carriers(self, unmoved: Sequence[Asked]) -> list[Carrier]:
        """A sample of prompts with the policies' answers: the same for the same suites."""
        carriers = _all_carriers(unmoved)
        carriers.sort(key=lambda c: sha256_digest(c.item.canonical_json()))
        return carriers[: self._settings.num_probe_prompts]


def regression(suites: Sequence[Suite]) -> list[Suite]:
    """The regression suites; without any, all: a probe needs prompts the batch did not teach."""
    return [s for s in suites if s.kind is SuiteKind.REGRESSION] or list(suites)


def _all_carriers(unmoved: Sequence[Asked]) -> list[Carrier]:
    return [
        Carrier(item, *(answer.text for answer in answers))
        for part in unmoved
        for item, *answers in zip(
            part.items, part.candidate, part.champion, part.anchor, strict=True
        )
    ]


def _of(asked: Sequence[Asked], suites: Sequence[Suite]) -> list[Asked]:
    names = {suite.name for suite in suites}
    return [part for part in asked if part.suite.name in names]


def _is_free(suite: Suite) -> bool:
    """Whether its items are answered in free text, and by themselves."""
    return suite.checker.type != "choice" and not is_harness_suite(suite)


def _limit(asked: Sequence[Asked]) -> int:
    if not asked:
        raise EvaluationError("a suite that could be answered", got="none")
    return max(part.suite.max_new_tokens for part in asked)


def _pairs(asked: Sequence[Asked]) -> tuple[list[Answer], list[Answer]]:
    """All answers of candidate and champion."""
    if not asked:
        raise EvaluationError("a suite that could be answered", got="none")
    return [a for part in asked for a in part.candidate], [a for p in asked for a in p.champion]
