"""JSON API of the gatekeeper: candidates and decisions; with ``gatekeeper.ledger_api``, the ledger.

Reading needs scope ``read``, deciding ``review``; a key bound to a policy line sees only that
line's candidates.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from gatekeeper.cases import Case, CaseState, SignedDecision
from gatekeeper.decide import Gatekeeper
from gatekeeper.dossier import CandidateReader, Dossier, open_dossier
from gatekeeper.gate_api import create_gate_router
from gatekeeper.ledger import Ledger
from gatekeeper.ledger_api import create_ledger_router
from gatekeeper.refusals import MAX_REASON_LENGTH
from gatekeeper.review_tokens import ReviewTokens
from gatekeeper.subjects import Related
from tacit.contracts import DecisionOutcome, Digest, EvalReport, VerdictOutcome
from tacit.contracts.base import Name, UtcDatetime
from tacit.http import bearer_principal
from tacit.keys import KeyStore, Principal, Scope


class CandidateSummary(BaseModel):
    """A line of the list of candidates."""

    candidate_id: str
    state: CaseState
    verdict: VerdictOutcome
    created_at: UtcDatetime
    expires_at: UtcDatetime


class DecisionRequest(BaseModel):
    """Body of approve and reject."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(max_length=MAX_REASON_LENGTH)]
    """Why; it goes into the ledger."""
    verdict_digest: Digest | None = None
    """The verdict the reviewer saw; given, it must be the one that stands."""


def create_router(
    gatekeeper: Gatekeeper,
    ledger: Ledger,
    candidates: CandidateReader,
    keys: KeyStore,
    *,
    policy: Name,
    tokens: ReviewTokens | None = None,
    related: Related | None = None,
) -> APIRouter:
    """Routes under ``/v1``; ``policy`` is the line listed when a request names none.

    ``related`` names what the ledger says about an event or a subject.
    """
    router = APIRouter(prefix="/v1", tags=["gatekeeper"])

    def principal(request: Request) -> Principal:
        return bearer_principal(keys, request)

    Caller = Annotated[Principal, Depends(principal)]

    @router.get("/candidates")
    def list_candidates(
        caller: Caller, line: Annotated[Name, Query(alias="policy")] = policy
    ) -> dict[str, list[CandidateSummary]]:
        """Candidates of a policy line that were judged, newest first."""
        caller.require(Scope.READ)
        caller.require_target(policy=line)
        rows = gatekeeper.cases(line)
        return {"candidates": [_summary(gatekeeper, case, decided) for case, decided in rows]}

    @router.get("/candidates/{candidate_id}")
    def show_candidate(candidate_id: str, caller: Caller) -> dict[str, Any]:
        """One candidate with its verdict, its evidence in short and what was decided."""
        caller.require(Scope.READ)
        dossier = open_dossier(gatekeeper, candidates, candidate_id)
        caller.require_target(policy=dossier.case.policy)
        given = gatekeeper.approvals(dossier.case)
        full = _full(dossier, mlflow_url=candidates.mlflow_url(candidate_id))
        return {**full, "approvals": [_json(approval) for approval in given]}

    @router.post("/candidates/{candidate_id}/approve")
    def approve(candidate_id: str, body: DecisionRequest, caller: Caller) -> dict[str, Any]:
        """Let a candidate through to serving; ``missing`` says who else must approve."""
        require_reviewer(candidate_id, caller)
        # A report swapped after the verdict shows here, before anything is signed.
        open_dossier(gatekeeper, candidates, candidate_id)
        return decide(candidate_id, DecisionOutcome.APPROVED, body, caller)

    @router.post("/candidates/{candidate_id}/reject")
    def reject(candidate_id: str, body: DecisionRequest, caller: Caller) -> dict[str, Any]:
        """Turn a candidate away."""
        require_reviewer(candidate_id, caller)
        return decide(candidate_id, DecisionOutcome.REJECTED, body, caller)

    def require_reviewer(candidate_id: str, caller: Principal) -> None:
        caller.require(Scope.REVIEW)
        caller.require_target(policy=gatekeeper.case(candidate_id)[0].policy)

    def decide(
        candidate_id: str, outcome: DecisionOutcome, body: DecisionRequest, caller: Principal
    ) -> dict[str, Any]:
        signed = gatekeeper.decide(
            candidate_id,
            outcome,
            by=caller.name,
            reason=body.reason,
            is_admin=Scope.ADMIN in caller.scopes,
            verdict_digest=body.verdict_digest,
        )
        case, _ = gatekeeper.case(candidate_id)
        missing = None if signed else gatekeeper.missing(case)
        return {**_decision(signed), "missing": missing}

    router.include_router(create_ledger_router(ledger, keys, related=related))
    router.include_router(create_gate_router(gatekeeper, candidates, keys, tokens, policy=policy))
    return router


def _summary(
    gatekeeper: Gatekeeper, case: Case, decided: SignedDecision | None
) -> CandidateSummary:
    return CandidateSummary(
        candidate_id=case.candidate_id,
        state=gatekeeper.state(case, decided),
        verdict=case.verdict.outcome,
        created_at=case.created_at,
        expires_at=case.expires_at,
    )


def _full(dossier: Dossier, *, mlflow_url: str | None) -> dict[str, Any]:
    return {
        "candidate_id": dossier.case.candidate_id,
        "state": dossier.state,
        "created_at": dossier.case.created_at,
        "expires_at": dossier.case.expires_at,
        "candidate": _json(dossier.candidate),
        "verdict": _json(dossier.case.verdict),
        "verdict_digest": dossier.case.verdict.digest(),
        "decision": None if dossier.decided is None else _json(dossier.decided.decision),
        "report": None if dossier.report is None else _report_summary(dossier.report),
        "mlflow_url": mlflow_url,
    }


def _json(contract: Any) -> dict[str, Any]:
    dumped: dict[str, Any] = contract.model_dump(mode="json")
    return dumped


def _decision(signed: SignedDecision | None) -> dict[str, Any]:
    if signed is None:
        return {"decision_id": None, "decision": None, "envelope": None}
    return {
        "decision_id": signed.decision.decision_id,
        "decision": _json(signed.decision),
        "envelope": signed.envelope,
    }


def _report_summary(report: EvalReport) -> dict[str, Any]:
    """The report without its items, which can be many thousands."""
    summary: dict[str, Any] = report.model_dump(
        mode="json", exclude={"suites": {"__all__": {"items"}}}
    )
    return {"report_id": report.report_id, **summary}
