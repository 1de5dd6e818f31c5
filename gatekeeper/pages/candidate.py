"""The page of one candidate: the verdict, the evidence, what it learned from, the decision."""

from fastapi import APIRouter, Request, Response

from gatekeeper.decide import Gatekeeper
from gatekeeper.desks import FeedbackDesk
from gatekeeper.dossier import CandidateReader, open_dossier
from gatekeeper.pages.changes import find_changes
from gatekeeper.pages.learned import cost_of, summarize
from gatekeeper.pages.plots import page_scale
from gatekeeper.pages.route import Field, go, render
from gatekeeper.pages.visits import Visits, may_review
from tacit.contracts import DecisionOutcome, Digest
from tacit.errors import InvalidInputError


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
        return render(
            "candidate.html",
            login=login,
            dossier=dossier,
            scale=page_scale(dossier.case.verdict, dossier.report),
            changes=find_changes(dossier.report),
            learned=summarize(
                candidates.learned(candidate_id),
                feedback.screened_with(dossier.candidate.batch_id),
            ),
            cost=cost_of(dossier.candidate, dossier.report),
            mlflow_url=candidates.mlflow_url(candidate_id),
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
            candidate_id, chosen, by=login.principal.name, reason=reason, verdict_digest=seen
        )
        return go(f"/candidates/{candidate_id}")


def _outcome(text: str) -> DecisionOutcome:
    try:
        return DecisionOutcome(text)
    except ValueError as error:
        raise InvalidInputError("outcome approved or rejected", got=repr(text)) from error
