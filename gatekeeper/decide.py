"""Decisions: one per candidate, by people or by the gate itself, signed and in the ledger.

    submit() opens a candidate with its verdict → pending
    decide() takes a person's yes or no         → approved | rejected
    gatekeeper.closing ends what nobody decides → approved | rejected | expired | superseded

Approving is refused unless the verdict allows it, the candidate has not expired and the gate policy
is still the one it was judged under; how many people it takes is in ``gatekeeper.approvals``.
Rejecting takes one person and is always possible. What is approved is bound by digest to candidate,
weights, batch, report, verdict and gate policy; ``deploy.verify`` checks the signature at every
load.

Every write takes the ledger's lock first, so that of two people deciding at once one decides and
the other is told who did. Time never runs backwards here: the last ledger entry is a lower bound.
"""

from sqlalchemy import select
from sqlalchemy.orm import Session

from gatekeeper.approvals import (
    Reviewer,
    find_approvals,
    keep_approval,
    people_missing,
    require_may_approve,
)
from gatekeeper.cases import Case, CaseState, SignedDecision, case_row, find_case
from gatekeeper.closing import Closing
from gatekeeper.policy import GatePolicy
from gatekeeper.refusals import require_about, require_decidable, require_text
from gatekeeper.tables import DecisionRow, VerdictRow
from tacit.contracts import (
    Approval,
    Decision,
    DecisionOutcome,
    Digest,
    GateVerdict,
    PolicyCandidate,
)
from tacit.errors import ConflictError

__all__ = ["Case", "CaseState", "Gatekeeper", "SignedDecision"]


class Gatekeeper(Closing):
    """Opens candidates for a decision and takes it."""

    def submit(self, session: Session, candidate: PolicyCandidate, verdict: GateVerdict) -> None:
        """Open ``candidate`` for a decision; submitting the same verdict again changes nothing.

        Raises InvalidInputError if the verdict is about something else, ConflictError if the
        candidate has another verdict already, ConfigError if the gate policy cannot be read.
        """
        require_about(verdict, candidate)
        self._ledger.lock(session)
        if session.get(VerdictRow, candidate.candidate_id) is not None:
            known = find_case(session, candidate.candidate_id, self._signer)
            if known.verdict == verdict:
                return
            raise ConflictError(
                "a candidate without a verdict",
                got=f"{candidate.candidate_id}, judged {known.verdict.outcome}",
            )
        policy = self._policies.in_force(session)
        now = self._now(session)
        case = Case(
            candidate_id=candidate.candidate_id,
            policy=candidate.policy,
            weights=candidate.weights,
            verdict=verdict,
            created_at=now,
            expires_at=now + self._validity(policy),
        )
        session.add(case_row(case, candidate, self._signer))
        body = {"verdict": verdict.model_dump(mode="json"), "verdict_digest": verdict.digest()}
        self._ledger.append(session, "verdict", candidate.candidate_id, body, at=now)

    def decide(
        self,
        candidate_id: str,
        outcome: DecisionOutcome,
        *,
        by: str,
        reason: str,
        is_admin: bool = False,
        verdict_digest: Digest | None = None,
    ) -> SignedDecision | None:
        """Approve or reject a pending candidate; None if more people must approve it.

        ``verdict_digest`` is what the reviewer saw; given, it must be the verdict that stands.
        Raises NotFoundError; InvalidInputError without a reason or a name; ConflictError if it is
        decided already, has expired, or (approving) the gate policy has changed or this person has
        approved; NotAllowedError on approving a ``fail`` that may not be overridden; ConfigError if
        the gate policy cannot be read.
        """
        with self._db.session() as session:
            return self.decide_in(
                session,
                candidate_id,
                outcome,
                reviewer=Reviewer(by, is_admin),
                reason=reason,
                verdict_digest=verdict_digest,
            )

    def decide_in(
        self,
        session: Session,
        candidate_id: str,
        outcome: DecisionOutcome,
        *,
        reviewer: Reviewer,
        reason: str,
        verdict_digest: Digest | None = None,
    ) -> SignedDecision | None:
        """As :meth:`decide`, in the caller's transaction."""
        require_text(by=reviewer.name, reason=reason)
        require_decidable(outcome)
        self._ledger.lock(session)
        case, now = self.open_case(session, candidate_id)
        if verdict_digest not in {None, case.verdict.digest()}:
            raise ConflictError("the verdict that stands", got=f"another, {verdict_digest}")
        approval = Approval(by=reviewer.name, reason=reason.strip(), at=now)
        if outcome is DecisionOutcome.APPROVED:
            return self._approve(session, case, reviewer, approval)
        return self._record(session, case, outcome, by=approval.by, reason=approval.reason, now=now)

    def _approve(
        self, session: Session, case: Case, reviewer: Reviewer, approval: Approval
    ) -> SignedDecision | None:
        policy = self._policies.in_force(session)
        before = find_approvals(session, case, self._signer)
        require_may_approve(case, policy, reviewer, before)
        given = [*before, approval]
        keep_approval(session, case, approval, self._signer)
        body = {
            "approval": approval.model_dump(mode="json"),
            "candidate_digest": case.verdict.candidate_digest,
            "verdict_digest": case.verdict.digest(),
        }
        self._ledger.append(session, "approval", case.candidate_id, body, at=approval.at)
        if people_missing(case, policy, given) is not None:
            return None
        return self._record(
            session,
            case,
            DecisionOutcome.APPROVED,
            by=approval.by,
            reason=approval.reason,
            now=approval.at,
            approvals=given,
        )

    def send_policy(self, policy: GatePolicy, *, by: str) -> None:
        """Let ``by`` vouch for a gate policy; whoever does is never its candidates' only approver.

        Raises InvalidInputError without a name.
        """
        require_text(by=by, reason="policy")
        with self._db.session() as session:
            self._ledger.lock(session)
            self._policies.send(session, policy, by=by)

    def genesis(self, session: Session, policy: str, weights: Digest, *, by: str) -> SignedDecision:
        """Approve the first weights of a policy line.

        Raises ConflictError if the line has any decision or verdict: the way in without evidence
        is open once.
        """
        require_text(by=by, reason="genesis")
        self._ledger.lock(session)
        for table in (DecisionRow, VerdictRow):
            if session.scalars(select(table).where(table.policy == policy).limit(1)).first():
                raise ConflictError(
                    f"policy line {policy} to have no history",
                    got="a decision or verdict on it",
                    mend="Later weights come through the gate.",
                )
        decision = Decision(
            kind="genesis",
            policy=policy,
            outcome=DecisionOutcome.APPROVED,
            weights=weights,
            candidate_digest=None,
            report_digest=None,
            batch_digest=None,
            verdict_digest=None,
            decided_by=by,
            reason="first weights of the policy line",
            decided_at=self._now(session),
            valid_until=None,
        )
        return self._keep(session, decision)
