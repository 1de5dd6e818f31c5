"""GateVerdict: the whole criteria table, never only the first failure."""

from enum import StrEnum

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


class GateVerdict(Contract):
    """What the gate policy makes of a report."""

    policy: Name
    candidate_digest: Digest
    report_digest: Digest
    batch_digest: Digest
    gate_policy_digest: Digest
    outcome: VerdictOutcome
    criteria: tuple[Criterion, ...]
    judged_at: UtcDatetime
