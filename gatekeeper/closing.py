"""How a candidate's case ends: the one decision on it, signed and in the ledger.

Here are the ends that no person brings about: what failed, what passed under a policy that promotes
by itself, what nobody decided in time, what another candidate or release has overtaken.
"""

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from gatekeeper.approvals import find_approvals, people_missing
from gatekeeper.casebook import CaseBook
from gatekeeper.cases import GATE, Case, SignedDecision, decision_subject, find_case, find_decision
from gatekeeper.ledger import Ledger
from gatekeeper.policy import GatePolicy
from gatekeeper.policy_log import PolicyInForce, PolicyLog
from gatekeeper.refusals import failed_rows, require_open
from gatekeeper.tables import DecisionRow, VerdictRow
from tacit.config import GatekeeperSettings
from tacit.contracts import (
    Approval,
    Decision,
    DecisionOutcome,
    Digest,
    VerdictOutcome,
    short,
    utc_now,
)
from tacit.database import Database
from tacit.errors import ConflictError
from tacit.signing import Signer

logger = logging.getLogger(__name__)


class Closing(CaseBook):
    """Ends cases; every decision is made in the transaction that appends it to the ledger."""

    def __init__(
        self,
        db: Database,
        signer: Signer,
        ledger: Ledger,
        settings: GatekeeperSettings,
        *,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        super().__init__(db, signer, ledger, clock=clock)
        self._settings = settings
        self._policies = PolicyLog(ledger, settings.gate_policy_path)

    def missing(self, case: Case, *, also: str | None = None) -> str | None:
        """What ``case`` still needs to be approved, for a person; None if it is approved.

        ``also`` is a person who is counted as if they had approved it too.
        Raises ConfigError, IntegrityError.
        """
        with self._db.reader() as session:
            policy = self._policies.look(session)
            given = find_approvals(session, case, self._signer)
        if also is not None:
            given.append(Approval(by=also, reason="", at=self.clock()))
        return people_missing(case, policy, given)

    def gate_policy(self) -> GatePolicy:
        """The gate policy in force. Raises ConfigError, IntegrityError."""
        with self._db.reader() as session:
            return self._policies.look(session).policy

    def settle(self, session: Session, candidate_id: str) -> SignedDecision | None:
        """What the gate decides itself about a candidate just submitted; None if people do.

        A fail is rejected unless admins may override it. A pass is approved if the policy says so
        and more than one person answers for that policy.
        """
        self._ledger.lock(session)
        case, now = self.open_case(session, candidate_id)
        policy = self._policies.in_force(session)
        judged_under_it = case.verdict.gate_policy_digest == policy.digest
        match case.verdict.outcome:
            case VerdictOutcome.FAIL:
                if judged_under_it and policy.policy.overridable(case.verdict):
                    return None
                return self.reject_failed(session, candidate_id)
            case VerdictOutcome.PASS if judged_under_it and policy.may_promote:
                reason = f"passed gate policy {short(policy.digest)}, which promotes what passes"
                outcome = DecisionOutcome.APPROVED
                return self._record(session, case, outcome, by=GATE, reason=reason, now=now)
        return None

    def reject_failed(self, session: Session, candidate_id: str) -> SignedDecision:
        """The gate turns a failing candidate away. Raises ConflictError unless it failed."""
        self._ledger.lock(session)
        case, now = self.open_case(session, candidate_id)
        if case.verdict.outcome is not VerdictOutcome.FAIL:
            raise ConflictError("a candidate that failed the gate", got=str(case.verdict.outcome))
        reason = f"failed the gate: {failed_rows(case.verdict)}"
        outcome = DecisionOutcome.REJECTED
        return self._record(session, case, outcome, by=GATE, reason=reason, now=now)

    def decision_on(self, candidate_digest: Digest) -> SignedDecision | None:
        """The decision on a candidate; one nobody decided in time expires here and now.

        Raises IntegrityError if what is stored is not what was signed.
        """
        with self._db.reader() as session:
            found = find_decision(session, candidate_digest, self._signer)
            row = session.scalar(
                select(VerdictRow).where(VerdictRow.candidate_digest == candidate_digest)
            )
            if found is not None or row is None:
                return found
            case = find_case(session, row.candidate_id, self._signer)
            if self._now(session) < case.expires_at:
                return None
        with self._db.session() as session:
            self._ledger.lock(session)
            return self._end(session, case, superseded_by="")

    def supersede(self, session: Session, policy: str, *, by: str, but: str | None = None) -> int:
        """Close the line's undecided candidates, except ``but``; returns how many there were.

        ``by`` says in words what took their place. One past its time expires instead.
        """
        self._ledger.lock(session)
        undecided = select(VerdictRow.candidate_id).where(
            VerdictRow.policy == policy,
            VerdictRow.candidate_id != (but or ""),
            ~select(DecisionRow).where(DecisionRow.subject == VerdictRow.candidate_digest).exists(),
        )
        ids = session.scalars(undecided.order_by(VerdictRow.created_at)).all()
        for candidate_id in ids:
            self._end(session, find_case(session, candidate_id, self._signer), superseded_by=by)
        return len(ids)

    def _end(self, session: Session, case: Case, *, superseded_by: str) -> SignedDecision:
        found = find_decision(session, case.verdict.candidate_digest, self._signer)
        if found is not None:
            return found
        now = self._now(session)
        outcome = DecisionOutcome.SUPERSEDED
        reason = f"superseded by {superseded_by}"
        if now >= case.expires_at:
            outcome = DecisionOutcome.EXPIRED
            reason = f"expired: nobody decided before {case.expires_at.isoformat()}"
        return self._record(session, case, outcome, by=GATE, reason=reason, now=now)

    def open_case(self, session: Session, candidate_id: str) -> tuple[Case, datetime]:
        """A pending case and the present moment. Raises NotFoundError, ConflictError."""
        case = find_case(session, candidate_id, self._signer)
        now = self._now(session)
        found = find_decision(session, case.verdict.candidate_digest, self._signer)
        require_open(case, found, now=now)
        return case, now

    def _validity(self, policy: PolicyInForce) -> timedelta:
        return policy.policy.approval_valid_for or timedelta(seconds=self._settings.approval_ttl_s)

    def _record(
        self,
        session: Session,
        case: Case,
        outcome: DecisionOutcome,
        *,
        by: str,
        reason: str,
        now: datetime,
        approvals: Sequence[Approval] = (),
    ) -> SignedDecision:
        approved = outcome is DecisionOutcome.APPROVED
        verdict = case.verdict
        failed = [row.name for row in verdict.criteria if row.outcome is VerdictOutcome.FAIL]
        valid_for = self._validity(self._policies.in_force(session)) if approved else None
        decision = Decision(
            policy=case.policy,
            outcome=outcome,
            weights=case.weights,
            candidate_digest=verdict.candidate_digest,
            report_digest=verdict.report_digest,
            batch_digest=verdict.batch_digest,
            verdict_digest=verdict.digest(),
            gate_policy_digest=verdict.gate_policy_digest,
            decided_by=by,
            reason=reason,
            approvals=tuple(approvals),
            overrides=tuple(failed) if approved else (),
            decided_at=now,
            valid_until=now + valid_for if valid_for else None,
        )
        logger.info("candidate %s %s by %s", case.candidate_id, outcome, by)
        return self._keep(session, decision)

    def _keep(self, session: Session, decision: Decision) -> SignedDecision:
        payload = decision.model_dump(mode="json")
        envelope = self._signer.seal(payload)
        session.add(
            DecisionRow(
                subject=decision_subject(decision),
                policy=decision.policy,
                weights=decision.weights,
                outcome=decision.outcome,
                digest=decision.digest(),
                payload=decision.canonical_json().decode(),
                envelope=envelope,
                decided_at=decision.decided_at,
            )
        )
        body = {"decision": payload, "decision_digest": decision.digest()}
        moment = decision.decided_at
        self._ledger.append(session, "decision", decision.decision_id, body, at=moment)
        return SignedDecision(decision, envelope)
