"""One suite under way: answered look by look by all three policies, scored, compared.

In: a suite, the tests the gate will decide on it, an AnswerBook. Out: a SuiteResult. Non-negotiable
items are asked at the first look, wherever the order puts them; into the comparison they come with
the look they belong to, so that what is compared stays a random sample.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from evaluator.answers import Answer, AnswerBook, OnBatch
from evaluator.probing import Asked
from evaluator.scoring import score_items
from evaluator.sequential import Asking, Schedule, targets
from evaluator.statistics import Floats
from evaluator.triggers import user_text
from tacit.contracts import (
    Comparison,
    Digest,
    HarnessComparison,
    ItemResult,
    PlannedTest,
    Suite,
    SuiteResult,
)
from tacit.contracts.plan import Baseline


class Contest(NamedTuple):
    """Who is compared."""

    candidate: Digest
    champion: Digest
    anchor: Digest

    @property
    def policies(self) -> list[Digest]:
        """Each once, those whose answers are likely to be known first."""
        return list(dict.fromkeys([self.anchor, self.champion, self.candidate]))


class SuiteRun:
    """Answers and scores so far."""

    def __init__(
        self, suite: Suite, contest: Contest, tests: Sequence[PlannedTest], *, confidence: float
    ) -> None:
        """``confidence`` of the intervals that no test is about."""
        self.suite = suite
        self._contest = contest
        found = targets(suite, tests, confidence=confidence)
        self._asking = Asking(Schedule(suite, found), found)
        self._answers: dict[Digest, dict[int, Answer]] = {p: {} for p in contest.policies}
        self._scores: dict[Digest, dict[int, float]] = {p: {} for p in contest.policies}
        self._prefix: list[int] = []

    @property
    def is_open(self) -> bool:
        """Whether there is more to ask."""
        return self._asking.is_open

    @property
    def num_unasked(self) -> int:
        """Items that no policy was asked."""
        return len(self.suite.items) - len(self._answers[self._contest.candidate])

    def answer(self, weights: Digest, book: AnswerBook, *, on_batch: OnBatch) -> None:
        """Answers of one policy to the items of the next look. Raises as ``answer_items``."""
        known = self._answers[weights]
        wanted = list(self._asking.wanted)
        if not known:
            wanted += [i for i, item in enumerate(self.suite.items) if item.non_negotiable]
        missing = list(dict.fromkeys(index for index in wanted if index not in known))
        found = book.answer_items(weights, self.suite, missing, on_batch=on_batch)
        known.update(zip(missing, found, strict=True))

    def look(self) -> None:
        """Score what was answered, and see whether that decides it. Raises as ``score_items``."""
        for weights, answers in self._answers.items():
            scores = self._scores[weights]
            fresh = sorted(index for index in answers if index not in scores)
            items = [self.suite.items[index] for index in fresh]
            found = score_items(self.suite, items, [answers[index] for index in fresh])
            scores.update(zip(fresh, found, strict=True))
        self._prefix += self._asking.wanted
        self._asking.look(
            {"champion": self._against("champion"), "anchor": self._against("anchor")}
        )

    def _scored(self, weights: Digest) -> Floats:
        return np.array([self._scores[weights][index] for index in self._prefix])

    def _against(self, baseline: Baseline) -> Floats:
        other = self._contest.champion if baseline == "champion" else self._contest.anchor
        return self._scored(self._contest.candidate) - self._scored(other)

    def _compare(self, baseline: Baseline) -> Comparison:
        return self._asking.compare(baseline, self._against(baseline))

    @property
    def asked(self) -> Asked:
        """What the policies answered, in the order of the suite."""
        order = sorted(self._answers[self._contest.candidate])
        answers = ([self._answers[p][index] for index in order] for p in self._contest)
        return Asked(self.suite, [self.suite.items[index] for index in order], *answers)

    def result(self, book: AnswerBook) -> SuiteResult:
        """Accuracies, comparisons and items. Raises UnavailableError."""
        candidate, champion, anchor = (float(self._scored(p).mean()) for p in self._contest)
        return SuiteResult(
            name=self.suite.name,
            kind=self.suite.kind,
            suite_digest=self.suite.digest(),
            checker=self.suite.checker,
            num_items=len(self._prefix),
            candidate=candidate,
            champion=champion,
            anchor=anchor,
            versus_champion=self._compare("champion"),
            versus_anchor=self._compare("anchor"),
            items=tuple(self._item(i) for i in sorted(self._scores[self._contest.candidate])),
            suite_items=len(self.suite.items),
            looks=tuple(self._asking.looks),
            harness=self._harness(book),
        )

    def _harness(self, book: AnswerBook) -> tuple[HarnessComparison, ...]:
        tasks = zip(*(book.harness_tasks(p, self.suite) for p in self._contest), strict=True)
        return tuple(
            HarnessComparison(candidate=candidate, champion=champion, anchor=anchor)
            for candidate, champion, anchor in tasks
        )

    def _item(self, index: int) -> ItemResult:
        item = self.suite.items[index]
        candidate, champion, anchor = (self._scores[p][index] for p in self._contest)
        texts = [self._answers[p][index].text for p in self._contest]
        return ItemResult(
            item_id=item.item_id,
            prompt=user_text(item.prompt),
            expected=item.expected,
            cluster=item.cluster or item.item_id,
            non_negotiable=item.non_negotiable,
            candidate=candidate,
            champion=champion,
            anchor=anchor,
            candidate_completion=texts[0],
            champion_completion=texts[1],
            anchor_completion=texts[2],
        )
