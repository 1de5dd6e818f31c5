"""The overview: the loop as a picture, what waits for a person, what was decided."""

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple

from fastapi import APIRouter, Request, Response

from gatekeeper.campaign import Campaigns
from gatekeeper.cases import Case, CaseState, SignedDecision
from gatekeeper.decide import Gatekeeper
from gatekeeper.dossier import CandidateReader, LoopStatus
from gatekeeper.pages.budgets import Budget, budgets
from gatekeeper.pages.route import render
from gatekeeper.pages.visits import Visits
from tacit.contracts import VerdictOutcome, short
from tacit.contracts.base import Name
from tacit.cycles import CycleState
from tacit.errors import TacitError

logger = logging.getLogger(__name__)

_NOW = {
    CycleState.COLLECTING: ("Collect", "collecting"),
    CycleState.TRAINING: ("Train", "learning"),
    CycleState.EVALUATING: ("Evaluate", "measuring"),
    CycleState.AWAITING_DECISION: ("Decide", "waiting"),
    CycleState.PROMOTING: ("Serve", "swapping"),
}


class Stage(NamedTuple):
    """One station of the loop, with what is there now."""

    title: str
    number: str
    caption: str
    path: str | None
    """Where more is said about it."""
    now: str | None
    """What happens there at this moment."""


def add_overview(
    router: APIRouter,
    visits: Visits,
    gatekeeper: Gatekeeper,
    candidates: CandidateReader,
    campaigns: Campaigns,
    *,
    policy: Name,
    clock: Callable[[], datetime],
) -> None:
    """``/``."""

    @router.get("/")
    def overview(request: Request) -> Response:
        login = visits.reader(request)
        rows = [(*row, gatekeeper.state(*row)) for row in gatekeeper.cases(policy)]
        waiting = [case for case, _, state in rows if state is CaseState.PENDING]
        status = candidates.status()
        return render(
            "overview.html",
            login=login,
            status=status,
            waiting=waiting,
            closed=[row for row in rows if row[2] is not CaseState.PENDING],
            budgets=_budgets(gatekeeper, campaigns, rows, status),
            stages=loop_stages(status, [case for case, *_ in rows], waiting=waiting),
            now=clock(),
        )


Row = tuple[Case, SignedDecision | None, CaseState]


def _budgets(
    gatekeeper: Gatekeeper, campaigns: Campaigns, rows: Sequence[Row], status: LoopStatus
) -> Sequence[Budget]:
    served = (case for case, _, state in rows if state is CaseState.APPROVED)
    verdict = next((c.verdict for c in served if c.weights == status.weights), None)
    try:
        return budgets(gatekeeper.gate_policy(), campaigns.current(status.policy), verdict)
    except TacitError as error:
        # The page that says what waits and what serves must not go with them.
        logger.warning("the budgets are not shown: %s", error)
        return []


def loop_stages(
    status: LoopStatus, cases: Sequence[Case], *, waiting: Sequence[Case]
) -> list[Stage]:
    """The five stations of the loop with live numbers; ``cases`` are all that were judged."""
    now = _NOW.get(status.cycle_state) if status.cycle_state else None
    num_passed = sum(case.verdict.outcome is VerdictOutcome.PASS for case in cases)
    # The one under way has no verdict yet.
    num_made = len(cases) + (status.cycle_state is CycleState.EVALUATING)
    weights = "nothing yet" if status.weights is None else short(status.weights)
    decide = f"/candidates/{waiting[0].candidate_id}" if len(waiting) == 1 else None
    stages = [
        Stage("Collect", f"{status.num_trainable:,}", _needed(status), "/feedback", None),
        Stage("Train", f"{num_made:,}", _plural(num_made, "candidate"), None, None),
        Stage("Evaluate", f"{num_passed:,}", "passed the gate", None, None),
        Stage("Decide", f"{len(waiting):,}", "waiting for a person", decide, None),
        Stage("Serve", _release_number(status.release_id), weights, "/releases", None),
    ]
    return [
        stage._replace(now=now[1]) if now and stage.title == now[0] else stage for stage in stages
    ]


def _needed(status: LoopStatus) -> str:
    if not status.num_needed:
        return "to learn from"
    return f"of {status.num_needed:,} needed to learn"


def _plural(number: int, noun: str) -> str:
    return noun if number == 1 else f"{noun}s"


def _release_number(release_id: str | None) -> str:
    return "–" if release_id is None else f"#{release_id.rpartition('-')[2]}"
