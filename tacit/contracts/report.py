"""EvalReport: what candidate, champion and anchor answered, item by item, and the sums of it."""

from typing import Annotated

from pydantic import Field

from tacit.contracts.base import Contract, Digest, Name, Part, UtcDatetime, short
from tacit.contracts.harness import HarnessComparison
from tacit.contracts.plan import PlannedTest
from tacit.contracts.suite import CheckerSpec, SuiteKind

Score = Annotated[float, Field(ge=0, le=1)]


class Comparison(Part):
    """Mean paired difference candidate minus baseline, with its confidence interval."""

    difference: float
    ci_low: float
    ci_high: float
    confidence: float
    """Two-sided coverage of the interval, e.g. 0.95."""
    standard_error: float
    """Cluster-robust."""
    anytime: bool = Field(False, exclude_if=lambda value: not value)
    """Whether the interval is that of a confidence sequence, which allows to stop at any look."""

    @property
    def alpha(self) -> float:
        """Probability that the interval lies above the true difference; the same for below."""
        return (1 - self.confidence) / 2


class ItemResult(Part):
    """One item: scores and answers of all three policies."""

    item_id: str
    prompt: str
    expected: str
    cluster: str
    non_negotiable: bool
    candidate: Score
    champion: Score
    anchor: Score
    candidate_completion: str
    champion_completion: str
    anchor_completion: str


class SuiteResult(Part):
    """One suite: accuracies, comparisons and every item."""

    name: Name
    kind: SuiteKind
    suite_digest: Digest
    checker: CheckerSpec = Field(CheckerSpec(), exclude_if=lambda value: value == CheckerSpec())
    """Of a judge: which model at which endpoint."""
    num_items: int
    """Items that accuracies and comparisons are made from."""
    candidate: Score
    champion: Score
    anchor: Score
    versus_champion: Comparison
    versus_anchor: Comparison
    items: tuple[ItemResult, ...]
    """Those, and non-negotiable items that an early stop left out of the comparison."""
    suite_items: int | None = Field(None, exclude_if=lambda value: value is None)
    """Items of the suite; None in reports from before suites could be stopped early."""
    looks: tuple[int, ...] = Field((), exclude_if=lambda value: not value)
    """Items compared at each look, the last of which is ``num_items``."""

    harness: tuple[HarnessComparison, ...] = Field((), exclude_if=lambda value: not value)
    """What lm-evaluation-harness itself says, a task each, of a suite of ``type: lm_eval``."""

    @property
    def stopped_early(self) -> bool:
        """Whether everything was decided before the last item."""
        return self.suite_items is not None and self.num_items < self.suite_items

    @property
    def num_saved(self) -> int:
        """Items that were not asked."""
        return max(0, (self.suite_items or 0) - len(self.items)) if self.stopped_early else 0

    @property
    def non_negotiable_failures(self) -> tuple[str, ...]:
        """Ids of non-negotiable items the candidate got wrong."""
        return tuple(i.item_id for i in self.items if i.non_negotiable and i.candidate < 1)


class ProbeResult(Part):
    """A scan that looks for a sign of poisoning; larger ``observed`` is worse."""

    name: Name
    observed: float
    num_items: int
    detail: str
    """What was found, for a person."""


class Calibration(Part):
    """How often a checker is wrong, measured on completions that people labelled."""

    checker: str
    checker_digest: Digest
    """Of the weights it was measured with."""
    source: str
    """Name of the labelled data."""
    data_digest: Digest
    num_labelled: int
    num_seen: int = 0
    """Of these, how many the checker was fitted on: the error rates are too good by them."""
    agreement: Score
    """Share of labels that the checker gives too."""
    missed: Score
    """Share of what people labelled so that the checker overlooks."""
    false_alarms: Score
    """Share of the rest that it takes for such."""


class SuiteChange(Part):
    """A suite that is not what it was in the report before: its figures start anew."""

    name: Name
    before: Digest | None
    """None for a suite that is new."""
    after: Digest | None
    """None for one that is gone."""


class EvalReport(Contract):
    """All evidence about one candidate. ``errors`` non-empty makes the gate fail closed."""

    policy: Name
    candidate_digest: Digest
    """Digest of the PolicyCandidate contract."""
    weights: Digest
    champion: Digest
    anchor: Digest
    batch_digest: Digest
    suites: tuple[SuiteResult, ...]
    probes: tuple[ProbeResult, ...]
    errors: tuple[str, ...] = ()
    """One line per suite, checker or probe that could not be run."""
    calibrations: tuple[Calibration, ...] = Field((), exclude_if=lambda value: not value)
    """Error rates of checkers, where they were measured (``tacit suites calibrate``)."""
    tests: tuple[PlannedTest, ...] = Field((), exclude_if=lambda value: not value)
    """What the evaluator was told the gate would decide on, and with which error probability."""
    previous: Digest | None = Field(None, exclude_if=lambda value: value is None)
    """Digest of the policy line's report before this one."""
    changed_suites: tuple[SuiteChange, ...] = Field((), exclude_if=lambda value: not value)
    """Suites that differ from those of ``previous``."""
    created_at: UtcDatetime

    @property
    def report_id(self) -> str:
        """``e-`` and the first 12 hex digits of the digest."""
        return f"e-{short(self.digest())}"

    def suite(self, name: str) -> SuiteResult | None:
        """The result of the suite called ``name``, if it ran."""
        return next((s for s in self.suites if s.name == name), None)

    def probe(self, name: str) -> ProbeResult | None:
        """The result of the probe called ``name``, if it ran."""
        return next((p for p in self.probes if p.name == name), None)


class ReportOutline(Part):
    """A report without its items, for what looks at many: histories and plots."""

    report_digest: Digest
    policy: Name
    weights: Digest
    champion: Digest
    anchor: Digest
    suites: tuple[SuiteResult, ...]
    """Without items."""
    created_at: UtcDatetime

    @classmethod
    def of(cls, report: EvalReport) -> "ReportOutline":
        """The outline of ``report``."""
        return cls(
            report_digest=report.digest(),
            policy=report.policy,
            weights=report.weights,
            champion=report.champion,
            anchor=report.anchor,
            suites=tuple(suite.model_copy(update={"items": ()}) for suite in report.suites),
            created_at=report.created_at,
        )
