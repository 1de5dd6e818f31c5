"""Approvals: each person's yes to one candidate, signed, until there are enough of them.

How many it takes, and of whom:

- as many people as the gate policy says (``approvers``);
- two for a candidate that failed the gate, the first of them an admin;
- not only the person who sent the gate policy it was judged under, and two where nobody knows who
  sent that.
"""

from collections.abc import Sequence
from typing import NamedTuple

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from gatekeeper.cases import Case
from gatekeeper.policy_log import PolicyInForce
from gatekeeper.refusals import failed_rows
from gatekeeper.tables import ApprovalRow
from tacit.contracts import Approval, Digest, Part, VerdictOutcome
from tacit.contracts.decision import MIN_OVERRIDERS
from tacit.errors import ConflictError, IntegrityError, NotAllowedError
from tacit.signing import Signer, Verifier


class Reviewer(NamedTuple):
    """Who decides."""

    name: str
    is_admin: bool = False


class SignedApproval(Part):
    """What the signature of an approval covers."""

    candidate_digest: Digest
    verdict_digest: Digest
    approval: Approval


def find_approvals(session: Session, case: Case, verifier: Verifier) -> list[Approval]:
    """The approvals of a candidate, oldest first. Raises IntegrityError on one that was altered."""
    subject = case.verdict.candidate_digest
    rows = session.scalars(
        select(ApprovalRow)
        .where(ApprovalRow.candidate_digest == subject)
        .order_by(ApprovalRow.created_at, ApprovalRow.approved_by)
    )
    found: list[Approval] = []
    for row in rows:
        try:
            signed = SignedApproval.model_validate(verifier.open(row.envelope))
        except ValidationError as error:
            raise IntegrityError(f"a signed approval of {subject}", got=str(error)) from error
        about = (signed.candidate_digest, signed.verdict_digest, signed.approval.by)
        if about != (subject, case.verdict.digest(), row.approved_by):
            raise IntegrityError(f"an approval of {subject} by {row.approved_by}", got=str(about))
        found.append(signed.approval)
    return found


def keep_approval(session: Session, case: Case, approval: Approval, signer: Signer) -> None:
    """Keep ``approval`` in the caller's transaction."""
    signed = SignedApproval(
        candidate_digest=case.verdict.candidate_digest,
        verdict_digest=case.verdict.digest(),
        approval=approval,
    )
    session.add(
        ApprovalRow(
            candidate_digest=signed.candidate_digest,
            approved_by=approval.by,
            envelope=signer.seal(signed.model_dump(mode="json")),
            created_at=approval.at,
        )
    )


def require_may_approve(
    case: Case, policy: PolicyInForce, reviewer: Reviewer, before: Sequence[Approval]
) -> None:
    """Raises ConflictError if the gate policy changed since or this person approved already,
    NotAllowedError if what failed cannot be approved, or not by this person.
    """
    verdict = case.verdict
    if verdict.outcome is VerdictOutcome.FAIL:
        _require_override(case, policy, reviewer, before)
    if verdict.gate_policy_digest != policy.digest:
        raise ConflictError(
            f"a verdict under the gate policy in force, {policy.digest}",
            got=verdict.gate_policy_digest,
            mend="The policy was edited after the verdict. Put it back, or reject.",
        )
    if reviewer.name in {approval.by for approval in before}:
        raise ConflictError(
            f"another person than {reviewer.name}, who approved already",
            got=reviewer.name,
            mend=f"{people_missing(case, policy, before)}.",
        )


def _require_override(
    case: Case, policy: PolicyInForce, reviewer: Reviewer, before: Sequence[Approval]
) -> None:
    if not policy.policy.overridable(case.verdict):
        raise NotAllowedError(
            "a verdict of pass or inconclusive",
            got=f"fail: {failed_rows(case.verdict)}",
            mend="A candidate that fails the gate can only be rejected.",
        )
    if not before and not reviewer.is_admin:
        raise NotAllowedError(
            "an admin to approve first what failed the gate",
            got=f"{reviewer.name}, who is none",
            mend="Reject it, or ask an admin; the second person may be any reviewer.",
        )


def people_missing(case: Case, policy: PolicyInForce, given: Sequence[Approval]) -> str | None:
    """What is still missing for an approval, for a person; None if nothing is."""
    people = {approval.by for approval in given}
    needed = policy.policy.approvers
    if case.verdict.outcome is VerdictOutcome.FAIL:
        needed = max(needed, MIN_OVERRIDERS)
    if policy.sent_by_nobody_known:
        needed = max(needed, 2)
    if len(people) < needed:
        return f"It takes {needed} people to approve; {len(people)} did"
    if policy.sole_sender in people and len(people) == 1:
        return f"{policy.sole_sender} sent the gate policy, so another person must approve too"
    return None
