"""GateVerdict: the whole criteria table, never only the first failure."""

from enum import StrEnum

from pydantic import Field

from tacit.contracts.base import Contract, Digest, Name, Part, UtcDatetime


class VerdictOutcome(StrEnum):
    """``inconclusive`` always goes to a person."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class Criterion(Part):
    """One row of the table."""

    name: str
    requirement: str
    """What is asked, in words."""
    outcome: VerdictOutcome
    threshold: float | None = None
    observed: float | None = None
    num_items: int = 0
    ci_low: float | None = None
    ci_high: float | None = None
    why: str
    """One sentence a reviewer can read."""


class CampaignShare(Part):
    """What a verdict takes of its campaign's error budget."""

    campaign: str
    """Id of the campaign."""
    alpha: float
    """Error probability of the whole campaign."""
    before: float
    """Spent on earlier candidates."""
    spent: float
    """Spent on this one; 0 where the same evidence was judged before, or where nothing was left."""
    evidence: Digest
    """Digest of what was tested: weights, baselines, suites and gate policy."""
    is_exhausted: bool
    """Whether there was less left than this candidate costs."""

    @property
    def left(self) -> float:
        """What later candidates may spend."""
        return max(0.0, self.alpha - self.before - self.spent)


class GateVerdict(Contract):
    """What the gate policy makes of a report."""

    policy: Name
    candidate_digest: Digest
    report_digest: Digest
    batch_digest: Digest
    gate_policy_digest: Digest
    outcome: VerdictOutcome
    criteria: tuple[Criterion, ...]
    campaign: CampaignShare | None = Field(None, exclude_if=lambda value: value is None)
    """None for verdicts that spend nothing: there was no report to judge."""
    judged_at: UtcDatetime
