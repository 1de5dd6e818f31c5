"""Cases: candidates opened for a decision, read back from the database and verified.

What the database says counts only if the signature beside it says the same: somebody who can
write to the tables but does not hold the key cannot turn a verdict or prolong a candidate.
"""

import re
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from gatekeeper.tables import DecisionRow, VerdictRow
from tacit.contracts import (
    Decision,
    Digest,
    GateVerdict,
    Part,
    PolicyCandidate,
)
from tacit.contracts.base import Name, UtcDatetime
from tacit.errors import IntegrityError, NotFoundError
from tacit.signing import Signer, Verifier

GATE = "gate"
"""``decided_by`` of what the gate decides itself."""


_CANDIDATE_ID = re.compile(r"c-[0-9a-f]{12}")


class CaseState(StrEnum):
    """Where a candidate stands with the gatekeeper."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"


class Case(Part):
    """A candidate with its verdict, as it was opened for a decision."""

    candidate_id: str
    policy: Name
    weights: Digest
    verdict: GateVerdict
    created_at: UtcDatetime
    expires_at: UtcDatetime
    """From this moment on it cannot be approved."""

    def state(self, decision: Decision | None, *, now: datetime) -> CaseState:
        """Its state at ``now``, given the decision on it if there is one."""
        if decision is None:
            return CaseState.EXPIRED if now >= self.expires_at else CaseState.PENDING
        return CaseState(decision.outcome)


class SignedDecision(NamedTuple):
    """A decision and the DSSE envelope that proves it."""

    decision: Decision
    envelope: str


def case_row(case: Case, candidate: PolicyCandidate, signer: Signer) -> VerdictRow:
    """The row that keeps ``case``."""
    return VerdictRow(
        candidate_id=case.candidate_id,
        policy=case.policy,
        candidate_digest=candidate.digest(),
        weights=case.weights,
        outcome=case.verdict.outcome,
        payload=signer.seal(case.model_dump(mode="json")),
        expires_at=case.expires_at,
        created_at=case.created_at,
    )


def find_case(session: Session, candidate_id: str, verifier: Verifier) -> Case:
    """The case of a candidate. Raises NotFoundError, IntegrityError."""
    # Checked first: PostgreSQL answers an id with a NUL in it with an error of its own.
    row = session.get(VerdictRow, candidate_id) if _CANDIDATE_ID.fullmatch(candidate_id) else None
    if row is None:
        raise NotFoundError(
            "a candidate with a verdict",
            got=candidate_id,
            mend="`tacit candidates` lists them.",
        )
    return open_case(row, verifier)


def cases_of(session: Session, policy: str, verifier: Verifier) -> list[Case]:
    """All cases of a policy line, newest first. Raises IntegrityError."""
    rows = session.scalars(
        select(VerdictRow)
        .where(VerdictRow.policy == policy)
        .order_by(VerdictRow.created_at.desc(), VerdictRow.candidate_id)
    )
    return [open_case(row, verifier) for row in rows]


def open_case(row: VerdictRow, verifier: Verifier) -> Case:
    """The signed case in ``row``. Raises IntegrityError if it is another one or was altered."""
    try:
        case = Case.model_validate(verifier.open(row.payload))
    except ValidationError as error:
        raise IntegrityError(f"the signed verdict on {row.candidate_id}", got=str(error)) from error
    signed = (case.candidate_id, case.verdict.candidate_digest)
    if signed != (row.candidate_id, row.candidate_digest):
        raise IntegrityError(f"the verdict on {row.candidate_id}", got=f"that on {signed[0]}")
    return case


def find_decision(session: Session, subject: str, verifier: Verifier) -> SignedDecision | None:
    """The decision on ``subject``, its signature verified. Raises IntegrityError."""
    row = session.get(DecisionRow, subject)
    if row is None:
        return None
    try:
        decision = Decision.model_validate(verifier.open(row.envelope))
    except ValidationError as error:
        raise IntegrityError(f"a signed decision on {subject}", got=str(error)) from error
    if decision_subject(decision) != subject:
        raise IntegrityError(f"the decision on {subject}", got=f"that on {decision.weights}")
    return SignedDecision(decision, row.envelope)


def decision_subject(decision: Decision) -> str:
    """What at most one decision can be on: a candidate, or the start of a policy line."""
    if decision.candidate_digest is not None:
        return decision.candidate_digest
    return genesis_subject(decision.policy, decision.weights)


def genesis_subject(policy: str, weights: Digest) -> str:
    """Subject of a genesis decision; two lines may start from the same weights."""
    return GenesisSubject(policy=policy, weights=weights).digest()


class GenesisSubject(Part):
    """What a genesis decision is on."""

    policy: Name
    weights: Digest
