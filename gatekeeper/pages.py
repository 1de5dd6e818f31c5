"""The review pages: overview, candidate, audit, login. Server-rendered, no script.

Reading needs scope ``read``, deciding ``review``. Every form carries a CSRF token bound to the
session; every page answers through ``gatekeeper.page_route``.
"""

import secrets
from collections.abc import Callable
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse

from gatekeeper.decide import Gatekeeper
from gatekeeper.dossier import CandidateReader, open_dossier
from gatekeeper.ledger import Ledger
from gatekeeper.page_route import FOLDER, PageRoute, render
from gatekeeper.plots import page_scale
from gatekeeper.presentation import find_flips, loop_stages, summarize
from gatekeeper.sessions import Login, Sessions, require_csrf
from tacit.contracts import DecisionOutcome, Digest, utc_now
from tacit.contracts.base import Name
from tacit.errors import InvalidInputError, TacitError
from tacit.keys import KeyStore, Scope

COOKIE = "tacit_session"
LOGIN_COOKIE = "tacit_login"
NUM_ENTRIES = 100

Field = Annotated[str, Form()]


def create_pages(
    gatekeeper: Gatekeeper,
    ledger: Ledger,
    candidates: CandidateReader,
    keys: KeyStore,
    *,
    policy: Name,
    secret: str,
    session_ttl_s: float,
    clock: Callable[[], datetime] = utc_now,
) -> APIRouter:
    """Routes of the pages of one policy line; ``secret`` signs the session cookies."""
    sessions = Sessions(keys, secret=secret, ttl_s=session_ttl_s, clock=clock)
    router = APIRouter(route_class=PageRoute, include_in_schema=False)
    _add_login(router, sessions)
    _add_decision(router, sessions, gatekeeper, candidates)

    def visitor(request: Request) -> Login:
        login = sessions.read(request.cookies.get(COOKIE))
        login.principal.require_target(policy=policy)
        return login

    @router.get("/")
    def overview(request: Request) -> Response:
        login = visitor(request)
        rows = [(*row, gatekeeper.state(*row)) for row in gatekeeper.cases(policy)]
        status = candidates.status()
        num_pending = sum(state == "pending" for *_, state in rows)
        return render(
            "overview.html",
            login=login,
            status=status,
            rows=rows,
            stages=loop_stages(status, num_pending=num_pending),
            now=clock(),
        )

    @router.get("/candidates/{candidate_id}")
    def candidate_page(candidate_id: str, request: Request) -> Response:
        login = visitor(request)
        dossier = open_dossier(gatekeeper, candidates, candidate_id)
        login.principal.require_target(policy=dossier.case.policy)
        return render(
            "candidate.html",
            login=login,
            dossier=dossier,
            scale=page_scale(dossier.case.verdict, dossier.report),
            flips=find_flips(dossier.report),
            learned=summarize(candidates.learned(candidate_id)),
            mlflow_url=candidates.mlflow_url(candidate_id),
            may_review=bool({Scope.REVIEW, Scope.ADMIN} & login.principal.scopes),
        )

    @router.get("/audit")
    def audit(request: Request) -> Response:
        return render(
            "audit.html",
            login=visitor(request),
            check=ledger.verify(),
            entries=ledger.entries(NUM_ENTRIES),
        )

    @router.get("/audit/ledger.json")
    def download(request: Request) -> Response:
        visitor(request)
        headers = {"Content-Disposition": 'attachment; filename="ledger.json"'}
        return JSONResponse(ledger.export(), headers=headers)

    @router.get("/static/style.css")
    def stylesheet() -> Response:
        path = FOLDER / "static" / "style.css"
        return FileResponse(path, media_type="text/css", headers={"Cache-Control": "no-cache"})

    return router


def _add_login(router: APIRouter, sessions: Sessions) -> None:
    @router.get("/login")
    def login_page(request: Request, next: str = "/") -> Response:
        return _login_form(request, sessions, target=next)

    @router.post("/login")
    def log_in(request: Request, key: Field = "", csrf: Field = "", next: Field = "/") -> Response:
        require_csrf(sessions.csrf_token(request.cookies.get(LOGIN_COOKIE, "")), csrf)
        try:
            cookie = sessions.open(key.strip())
        except TacitError as error:
            return _login_form(request, sessions, target=next, error=error)
        response = _go(_local(next))
        _set_cookie(response, request, COOKIE, cookie)
        response.delete_cookie(LOGIN_COOKIE, path="/login")
        return response

    @router.post("/logout")
    def log_out(request: Request, csrf: Field = "") -> Response:
        cookie = request.cookies.get(COOKIE)
        require_csrf(sessions.read(cookie).csrf, csrf)
        sessions.close(cookie)
        response = _go("/login")
        response.delete_cookie(COOKIE)
        return response


def _add_decision(
    router: APIRouter, sessions: Sessions, gatekeeper: Gatekeeper, candidates: CandidateReader
) -> None:
    @router.post("/candidates/{candidate_id}/decision")
    def decide(
        candidate_id: str,
        request: Request,
        outcome: Field = "",
        reason: Field = "",
        verdict_digest: Field = "",
        csrf: Field = "",
    ) -> Response:
        login = sessions.read(request.cookies.get(COOKIE))
        require_csrf(login.csrf, csrf)
        login.principal.require(Scope.REVIEW)
        chosen = _outcome(outcome)
        # Also refuses a report that was swapped since the page was read.
        dossier = open_dossier(gatekeeper, candidates, candidate_id)
        login.principal.require_target(policy=dossier.case.policy)
        seen: Digest = verdict_digest
        gatekeeper.decide(
            candidate_id, chosen, by=login.principal.name, reason=reason, verdict_digest=seen
        )
        return _go(f"/candidates/{candidate_id}")


def _login_form(
    request: Request, sessions: Sessions, *, target: str, error: TacitError | None = None
) -> Response:
    nonce = secrets.token_hex(16)
    values: dict[str, Any] = {"csrf": sessions.csrf_token(nonce), "next": _local(target)}
    code = 200 if error is None else error.status
    response = render("login.html", code=code, error=error, **values)
    _set_cookie(response, request, LOGIN_COOKIE, nonce, path="/login")
    return response


def _set_cookie(
    response: Response, request: Request, name: str, value: str, *, path: str = "/"
) -> None:
    secure = request.url.scheme == "https"
    response.set_cookie(name, value, path=path, httponly=True, samesite="strict", secure=secure)


def _outcome(text: str) -> DecisionOutcome:
    try:
        return DecisionOutcome(text)
    except ValueError as error:
        raise InvalidInputError("outcome approved or rejected", got=repr(text)) from error


def _go(path: str) -> RedirectResponse:
    return RedirectResponse(path, HTTPStatus.SEE_OTHER)


def _local(target: str) -> str:
    # Browsers read // and /\ as the start of another host's address.
    safe = target.startswith("/") and target[1:2] not in {"/", "\\"} and target.isprintable()
    return target if safe else "/"
