"""JSON API around decisions: gate policies sent and tried out, and tokens for reviewers."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gatekeeper.decide import Gatekeeper
from gatekeeper.dossier import CandidateReader
from gatekeeper.dry_run import DryRun, dry_run
from gatekeeper.policy import GatePolicy
from gatekeeper.refusals import MAX_REASON_LENGTH
from gatekeeper.review_tokens import ReviewTokens
from tacit.contracts import DecisionOutcome, Digest
from tacit.contracts.base import Name, UtcDatetime
from tacit.errors import InvalidInputError
from tacit.http import bearer_principal
from tacit.keys import KeyStore, Principal, Scope


class TokenRequest(BaseModel):
    """Body of a request for a token."""

    model_config = ConfigDict(extra="forbid")

    outcome: DecisionOutcome
    reason: Annotated[str, Field(max_length=MAX_REASON_LENGTH)]


class TokenAnswer(BaseModel):
    """A token, shown once."""

    token: str
    candidate_id: str
    outcome: DecisionOutcome
    reviewer: str
    expires_at: UtcDatetime


class PolicyAnswer(BaseModel):
    """A gate policy somebody answers for now."""

    digest: Digest
    sent_by: str


def create_gate_router(
    gatekeeper: Gatekeeper,
    candidates: CandidateReader,
    keys: KeyStore,
    tokens: ReviewTokens | None,
    *,
    policy: Name,
) -> APIRouter:
    """Routes under ``/gate`` and for tokens; without ``tokens`` there are no routes for them."""
    router = APIRouter()

    def principal(request: Request) -> Principal:
        return bearer_principal(keys, request)

    Caller = Annotated[Principal, Depends(principal)]

    @router.post("/gate/policy")
    def send_policy(body: dict[str, Any], caller: Caller) -> PolicyAnswer:
        """Answer for a gate policy, as parsed from its file; scope ``admin``."""
        caller.require(Scope.ADMIN)
        caller.require_target(policy=policy)
        sent = _policy(body)
        gatekeeper.send_policy(sent, by=caller.name)
        return PolicyAnswer(digest=sent.digest(), sent_by=caller.name)

    @router.post("/gate/dry-run")
    def try_policy(body: dict[str, Any], caller: Caller) -> dict[str, list[DryRun]]:
        """What a gate policy would have said about every candidate so far; scope ``read``."""
        caller.require(Scope.READ)
        caller.require_target(policy=policy)
        return {"candidates": list(dry_run(_policy(body), gatekeeper, candidates, line=policy))}

    if tokens is not None:

        @router.post("/candidates/{candidate_id}/tokens")
        def issue_token(candidate_id: str, body: TokenRequest, caller: Caller) -> TokenAnswer:
            """A token with which the caller decides once, through a tag in MLflow."""
            issued = tokens.issue(candidate_id, body.outcome, to=caller, reason=body.reason)
            return TokenAnswer(
                token=issued.text,
                candidate_id=candidate_id,
                outcome=issued.order.outcome,
                reviewer=issued.order.reviewer,
                expires_at=issued.order.expires_at,
            )

    return router


def _policy(body: dict[str, Any]) -> GatePolicy:
    try:
        return GatePolicy.model_validate(body)
    except ValidationError as error:
        raise InvalidInputError.of_fields(
            error.errors(), what="a gate policy", mend="`tacit gate check` names the lines."
        ) from error
