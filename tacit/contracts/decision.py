"""Decision: who let a candidate through or turned it away, bound to exactly what they saw."""

from enum import StrEnum
from typing import Any, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from tacit.contracts.base import Contract, Digest, Name, Part, Text, UtcDatetime, short

MIN_OVERRIDERS = 2
"""People it takes to approve what failed the gate."""


class DecisionOutcome(StrEnum):
    """Terminal: a decided candidate is never decided again."""

    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    """Nobody decided in time."""
    SUPERSEDED = "superseded"
    """What serves, or a newer candidate, took its place before anybody decided."""


class Approval(Part):
    """One person's yes; a decision may need several."""

    by: str
    reason: Text
    at: UtcDatetime


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
    gate_policy_digest: Digest | None = None
    """The gate policy the verdict was made under."""
    decided_by: str
    """Of several approvers the last."""
    reason: Text
    approvals: tuple[Approval, ...] = ()
    """Who approved, in order; empty where the gate decided itself."""
    overrides: tuple[str, ...] = ()
    """Criteria that failed and were approved all the same."""
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
        people = {approval.by for approval in self.approvals}
        if self.overrides and len(people) < MIN_OVERRIDERS:
            raise ValueError(
                f"expected {MIN_OVERRIDERS} people to approve what failed; got {sorted(people)}"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_empty(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Decisions made before these fields were there keep their digests.
        tree: dict[str, Any] = serialize(self)
        for name in ("gate_policy_digest", "approvals", "overrides"):
            if not tree[name]:
                del tree[name]
        return tree

    @property
    def decision_id(self) -> str:
        """``d-`` and the first 12 hex digits of the digest."""
        return f"d-{short(self.digest())}"
