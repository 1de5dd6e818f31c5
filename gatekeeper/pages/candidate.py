"""The page of one candidate: the verdict, the evidence, what it learned from, the decision."""

from collections.abc import Sequence
from typing import NamedTuple

from fastapi import APIRouter, Request, Response

from gatekeeper.cases import Case, CaseState
from gatekeeper.decide import Gatekeeper
from gatekeeper.desks import FeedbackDesk
from gatekeeper.dossier import CandidateReader, open_dossier
from gatekeeper.pages.changes import find_changes
from gatekeeper.pages.learned import cost_of, summarize
from gatekeeper.pages.plots import page_scale
from gatekeeper.pages.route import Field, go, render
from gatekeeper.pages.visits import Visits, may_review
from gatekeeper.sessions import Login
from tacit.contracts import Approval, DecisionOutcome, Digest, VerdictOutcome
from tacit.errors import InvalidInputError
from tacit.keys import Scope


def add_candidate(
    router: APIRouter,
    visits: Visits,
    gatekeeper: Gatekeeper,
    candidates: CandidateReader,
    feedback: FeedbackDesk,
) -> None:
    """``/candidates/ID`` and the form on it."""

    @router.get("/candidates/{candidate_id}")
    def candidate_page(candidate_id: str, request: Request) -> Response:
        login = visits.reader(request)
        dossier = open_dossier(gatekeeper, candidates, candidate_id)
        login.principal.require_target(policy=dossier.case.policy)
        pending = dossier.state is CaseState.PENDING
        return render(
            "candidate.html",
            login=login,
            dossier=dossier,
            scale=page_scale(dossier.case.verdict, dossier.report),
            changes=find_changes(dossier.report, source=login.principal.source),
            learned=summarize(
                candidates.learned(candidate_id),
                feedback.screened_with(dossier.candidate.batch_id),
                source=login.principal.source,
            ),
            cost=cost_of(dossier.candidate, dossier.report),
            mlflow_url=candidates.mlflow_url(candidate_id),
            ask=_ask(gatekeeper, dossier.case, login) if pending else None,
            may_review=may_review(login),
        )

    @router.post("/candidates/{candidate_id}/decision")
    def decide(
        candidate_id: str,
        request: Request,
        outcome: Field = "",
        reason: Field = "",
        verdict_digest: Field = "",
        csrf: Field = "",
    ) -> Response:
        login = visits.reviewer(request, csrf)
        chosen = _outcome(outcome)
        # Also refuses a report that was swapped since the page was read.
        dossier = open_dossier(gatekeeper, candidates, candidate_id)
        login.principal.require_target(policy=dossier.case.policy)
        seen: Digest = verdict_digest
        gatekeeper.decide(
            candidate_id,
            chosen,
            by=login.principal.name,
            reason=reason,
            is_admin=Scope.ADMIN in login.principal.scopes,
            verdict_digest=seen,
        )
        return go(f"/candidates/{candidate_id}")


class Ask(NamedTuple):
    """What one person is asked about one candidate."""

    approvals: Sequence[Approval]
    """Who approved it so far."""
    approve: str | None
    """What the button says; None if this person cannot approve it."""
    note: str


def _ask(gatekeeper: Gatekeeper, case: Case, login: Login) -> Ask:
    """What the form offers; the gatekeeper refuses all the same who may not."""
    name = login.principal.name
    given = gatekeeper.approvals(case)
    if name in {approval.by for approval in given}:
        return Ask(given, None, "You approved it. Another person must approve it too.")
    alone = gatekeeper.missing(case, also=name) is not None
    later = "It will serve once another person has approved it too." if alone else ""
    if case.verdict.outcome is not VerdictOutcome.FAIL:
        return Ask(given, "Approve" if alone else "Approve and serve", later)
    if not gatekeeper.gate_policy().overridable(case.verdict):
        return Ask(given, None, "A candidate that fails the gate cannot be approved.")
    # What failed an admin approves first, and a second person after.
    if not given and Scope.ADMIN not in login.principal.scopes:
        return Ask(given, None, "It failed the gate: only an admin can be the first to approve it.")
    note = f"It failed the gate. That it was approved all the same stands here for ever. {later}"
    return Ask(given, "Approve against the gate", note)


def _outcome(text: str) -> DecisionOutcome:
    try:
        return DecisionOutcome(text)
    except ValueError as error:
        raise InvalidInputError("outcome approved or rejected", got=repr(text)) from error
