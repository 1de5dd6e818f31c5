"""The review pages of one policy line, put together. Open this module first.

Each page is a module beside this one; all answer through ``route.py``, server-rendered and without
script, and read who visits through ``visits.py``. Layout is in ``gatekeeper/templates``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse

from gatekeeper.campaign import Campaigns
from gatekeeper.decide import Gatekeeper
from gatekeeper.desks import FeedbackDesk, ReleaseControl
from gatekeeper.dossier import CandidateReader
from gatekeeper.ledger import Ledger
from gatekeeper.logbook import Logbook
from gatekeeper.pages.audit import add_audit
from gatekeeper.pages.candidate import add_candidate
from gatekeeper.pages.feedback import add_feedback
from gatekeeper.pages.login import add_login
from gatekeeper.pages.overview import add_overview
from gatekeeper.pages.releases import add_releases
from gatekeeper.pages.route import FOLDER, PageRoute
from gatekeeper.pages.visits import Visits
from gatekeeper.sessions import Sessions
from tacit.contracts import utc_now
from tacit.contracts.base import Name
from tacit.keys import KeyStore


@dataclass(frozen=True)
class Review:
    """What the pages show and decide with."""

    gatekeeper: Gatekeeper
    ledger: Ledger
    logbook: Logbook
    campaigns: Campaigns
    candidates: CandidateReader
    feedback: FeedbackDesk
    releases: ReleaseControl


def create_pages(
    review: Review,
    keys: KeyStore,
    *,
    policy: Name,
    secret: str,
    session_ttl_s: float,
    clock: Callable[[], datetime] = utc_now,
) -> APIRouter:
    """Routes of the pages of one policy line; ``secret`` signs the session cookies."""
    sessions = Sessions(keys, secret=secret, ttl_s=session_ttl_s, clock=clock)
    visits = Visits(sessions, policy=policy)
    router = APIRouter(route_class=PageRoute, include_in_schema=False)
    gatekeeper, logbook = review.gatekeeper, review.logbook
    add_login(router, visits)
    add_overview(
        router, visits, gatekeeper, review.candidates, review.campaigns, policy=policy, clock=clock
    )
    add_candidate(router, visits, gatekeeper, review.candidates, review.feedback)
    add_feedback(router, visits, review.feedback, logbook)
    add_releases(router, visits, gatekeeper, review.releases, logbook, policy=policy, clock=clock)
    add_audit(router, visits, review.ledger, logbook)

    @router.get("/static/{name}.css")
    def stylesheet(name: Literal["style", "pages"]) -> Response:
        path = FOLDER / "static" / f"{name}.css"
        return FileResponse(path, media_type="text/css", headers={"Cache-Control": "no-cache"})

    return router
