"""Running the probes over what candidate and champion answered.

``answer_drift`` and ``malformed`` (probes.py) read the answers to the suites; ``trigger``
(trigger_probe.py) asks again, with phrases of the batch put into prompts. A probe that does not run
has found nothing, which is no pass: it becomes a line in the report's ``errors``.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from evaluator.answers import Answer
from evaluator.probes import answer_drift, malformed
from evaluator.trigger_probe import Carrier, Policies, count_prompts, probe_trigger
from evaluator.triggers import recurring_phrases, taught_by, user_text
from tacit.config import EvaluatorSettings
from tacit.contracts import ProbeResult, ScreenedEvent, Suite, SuiteItem, SuiteKind, sha256_digest
from tacit.errors import EvaluationError, UnavailableError


class Asked(NamedTuple):
    """Items of one suite and what both policies answered to them, in the same order."""

    suite: Suite
    items: Sequence[SuiteItem]
    candidate: Sequence[Answer]
    champion: Sequence[Answer]


class Probing:
    """The probes of one evaluation."""

    def __init__(
        self,
        settings: EvaluatorSettings,
        suites: Sequence[Suite],
        learned: Sequence[ScreenedEvent],
    ) -> None:
        self._settings = settings
        self._suites = suites
        background = [user_text(item.prompt) for suite in suites for item in suite.items]
        limit = settings.num_trigger_phrases
        self._phrases = recurring_phrases(taught_by(learned), background, limit=limit)

    @property
    def num_prompts(self) -> int:
        """Prompts the probes ask at most, for the progress callback."""
        num_items = sum(len(suite.items) for suite in regression(self._suites))
        return count_prompts(len(self._phrases), min(num_items, self._settings.num_probe_prompts))

    def run(
        self,
        asked: Sequence[Asked],
        policies: Callable[[int], Policies],
        on_error: Callable[[str, Exception], None],
    ) -> list[ProbeResult]:
        """Results of the probes that could be run; ``on_error`` is told of the others.

        ``policies`` gives what answers prompts, with at most so many tokens an answer.
        Raises UnavailableError when the database is away.
        """
        unmoved = _of(asked, regression([part.suite for part in asked]))
        probes: dict[str, Callable[[], ProbeResult]] = {
            "trigger": lambda: self._trigger(asked, unmoved, policies),
            "answer_drift": lambda: answer_drift(*_pairs(unmoved)),
            "malformed": lambda: malformed(*_pairs(asked)),
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
    ) -> ProbeResult:
        carriers = self._carriers(unmoved)
        if not carriers:
            raise EvaluationError("prompts to put phrases into", got="no suite that was answered")
        limit = max(part.suite.max_new_tokens for part in asked)
        return probe_trigger(policies(limit), self._phrases, carriers)

    def _carriers(self, unmoved: Sequence[Asked]) -> list[Carrier]:
        """A sample of prompts with both policies' answers: the same for the same suites."""
        carriers = [
            Carrier(item, mine.text, theirs.text)
            for part in unmoved
            for item, mine, theirs in zip(part.items, part.candidate, part.champion, strict=True)
        ]
        carriers.sort(key=lambda c: sha256_digest(c.item.canonical_json()))
        return carriers[: self._settings.num_probe_prompts]


def regression(suites: Sequence[Suite]) -> list[Suite]:
    """The regression suites; without any, all: a probe needs prompts the batch did not teach."""
    return [s for s in suites if s.kind is SuiteKind.REGRESSION] or list(suites)


def _of(asked: Sequence[Asked], suites: Sequence[Suite]) -> list[Asked]:
    names = {suite.name for suite in suites}
    return [part for part in asked if part.suite.name in names]


def _pairs(asked: Sequence[Asked]) -> tuple[list[Answer], list[Answer]]:
    """All answers of candidate and champion."""
    if not asked:
        raise EvaluationError("a suite that could be answered", got="none")
    return [a for part in asked for a in part.candidate], [a for p in asked for a in p.champion]
