"""Decisions: one per candidate, by a person or by the gate itself, signed and in the ledger.

    submit() opens a candidate with its verdict; decide() closes it. Approving is refused unless the
    verdict allows it, the candidate has not expired and the gate policy is still the one it was
    judged under. Rejecting is always possible. What is approved is bound by digest to candidate,
    weights, batch, report and verdict; ``deploy.verify`` checks the signature at every load.

Every write takes the ledger's lock first, so that of two people deciding at once one decides and
the other is told who did. Time never runs backwards here: the last ledger entry is a lower bound.
"""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from gatekeeper.casebook import CaseBook
from gatekeeper.cases import (
    GATE,
    Case,
    CaseState,
    SignedDecision,
    case_row,
    decision_subject,
    find_case,
    find_decision,
)
from gatekeeper.ledger import Ledger
from gatekeeper.refusals import (
    failed_rows,
    require_about,
    require_approvable,
    require_open,
    require_text,
)
from gatekeeper.tables import DecisionRow, VerdictRow
from tacit.config import GatekeeperSettings
from tacit.contracts import (
    Decision,
    DecisionOutcome,
    Digest,
    GateVerdict,
    PolicyCandidate,
    VerdictOutcome,
    utc_now,
)
from tacit.database import Database
from tacit.errors import ConflictError
from tacit.signing import Signer

__all__ = ["Case", "CaseState", "Gatekeeper", "SignedDecision"]

logger = logging.getLogger(__name__)


class Gatekeeper(CaseBook):
    """Opens candidates for a decision and takes it."""

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

    def submit(self, session: Session, candidate: PolicyCandidate, verdict: GateVerdict) -> None:
        """Open ``candidate`` for a decision; submitting the same verdict again changes nothing.

        Raises InvalidInputError if the verdict is about something else, ConflictError if the
        candidate has another verdict already.
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
        now = self._now(session)
        case = Case(
            candidate_id=candidate.candidate_id,
            policy=candidate.policy,
            weights=candidate.weights,
            verdict=verdict,
            created_at=now,
            expires_at=now + self._ttl,
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
        verdict_digest: Digest | None = None,
    ) -> SignedDecision:
        """Approve or reject a pending candidate.

        ``verdict_digest`` is what the reviewer saw; given, it must be the verdict that stands.
        Raises NotFoundError; InvalidInputError without a reason or a name; ConflictError if it is
        decided already, has expired, or (approving) the gate policy has changed; NotAllowedError
        on approving a ``fail``; ConfigError if the gate policy cannot be read.
        """
        require_text(by=by, reason=reason)
        with self._db.session() as session:
            self._ledger.lock(session)
            case = find_case(session, candidate_id, self._signer)
            now = self._now(session)
            self._require_open(session, case, now)
            if verdict_digest not in {None, case.verdict.digest()}:
                raise ConflictError("the verdict that stands", got=f"another, {verdict_digest}")
            if outcome is DecisionOutcome.APPROVED:
                require_approvable(case, policy_path=self._settings.gate_policy_path)
            return self._record(session, case, outcome, by=by, reason=reason.strip(), now=now)

    def reject_failed(self, session: Session, candidate_id: str) -> SignedDecision:
        """The gate turns a failing candidate away. Raises ConflictError unless it failed."""
        self._ledger.lock(session)
        case = find_case(session, candidate_id, self._signer)
        now = self._now(session)
        self._require_open(session, case, now)
        if case.verdict.outcome is not VerdictOutcome.FAIL:
            raise ConflictError("a candidate that failed the gate", got=str(case.verdict.outcome))
        reason = f"failed the gate: {failed_rows(case.verdict)}"
        return self._record(
            session, case, DecisionOutcome.REJECTED, by=GATE, reason=reason, now=now
        )

    def decision_on(self, candidate_digest: Digest) -> SignedDecision | None:
        """The decision on a candidate; one nobody decided in time is rejected here and now.

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
        return self._expire(case)

    def _expire(self, case: Case) -> SignedDecision:
        with self._db.session() as session:
            self._ledger.lock(session)
            subject = case.verdict.candidate_digest
            found = find_decision(session, subject, self._signer)
            if found is not None:
                return found
            reason = f"expired: nobody decided before {case.expires_at.isoformat()}"
            now = self._now(session)
            return self._record(
                session, case, DecisionOutcome.REJECTED, by=GATE, reason=reason, now=now
            )

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

    def _require_open(self, session: Session, case: Case, now: datetime) -> None:
        found = find_decision(session, case.verdict.candidate_digest, self._signer)
        require_open(case, found, now=now)

    @property
    def _ttl(self) -> timedelta:
        return timedelta(seconds=self._settings.approval_ttl_s)

    def _record(
        self,
        session: Session,
        case: Case,
        outcome: DecisionOutcome,
        *,
        by: str,
        reason: str,
        now: datetime,
    ) -> SignedDecision:
        approved = outcome is DecisionOutcome.APPROVED
        decision = Decision(
            policy=case.policy,
            outcome=outcome,
            weights=case.weights,
            candidate_digest=case.verdict.candidate_digest,
            report_digest=case.verdict.report_digest,
            batch_digest=case.verdict.batch_digest,
            verdict_digest=case.verdict.digest(),
            decided_by=by,
            reason=reason,
            decided_at=now,
            valid_until=now + self._ttl if approved else None,
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
