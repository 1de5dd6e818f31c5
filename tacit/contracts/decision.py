"""Decision: who let a candidate through or turned it away, bound to exactly what they saw."""

from enum import StrEnum
from typing import Literal

from pydantic import model_validator

from tacit.contracts.base import Contract, Digest, Name, Text, UtcDatetime, short


class DecisionOutcome(StrEnum):
    """Terminal: a decided candidate is never decided again."""

    APPROVED = "approved"
    REJECTED = "rejected"


class Decision(Contract):
    """Signed by the gatekeeper and appended to the ledger."""

    kind: Literal["gate", "genesis"] = "gate"
    """``genesis`` approves the first release of a policy line, which has no batch and no report."""
    policy: Name
    outcome: DecisionOutcome
    weights: Digest
    """Digest of the checkpoint decided on."""
    candidate_digest: Digest | None
    report_digest: Digest | None
    batch_digest: Digest | None
    verdict_digest: Digest | None
    decided_by: str
    reason: Text
    decided_at: UtcDatetime
    valid_until: UtcDatetime | None
    """An approval must be promoted before this moment."""

    @model_validator(mode="after")
    def _bound(self) -> "Decision":
        bound = (self.candidate_digest, self.report_digest, self.batch_digest, self.verdict_digest)
        if self.kind == "gate" and None in bound:
            raise ValueError(
                "expected a gate decision to bind candidate, report, batch and verdict digests; "
                "got at least one missing"
            )
        return self

    @property
    def decision_id(self) -> str:
        """``d-`` and the first 12 hex digits of the digest."""
        return f"d-{short(self.digest())}"
