"""Logging in with an API key, and out."""

import secrets
from typing import Any

from fastapi import APIRouter, Request, Response

from gatekeeper.pages.route import Field, go, render
from gatekeeper.pages.visits import COOKIE, LOGIN_COOKIE, Visits, set_cookie
from gatekeeper.sessions import Sessions, require_csrf
from tacit.errors import TacitError


def add_login(router: APIRouter, visits: Visits) -> None:
    """``/login`` and ``/logout``."""
    sessions = visits.sessions

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
        response = go(_local(next))
        set_cookie(response, request, COOKIE, cookie)
        response.delete_cookie(LOGIN_COOKIE, path="/login")
        return response

    @router.post("/logout")
    def log_out(request: Request, csrf: Field = "") -> Response:
        cookie = request.cookies.get(COOKIE)
        require_csrf(sessions.read(cookie).csrf, csrf)
        sessions.close(cookie)
        response = go("/login")
        response.delete_cookie(COOKIE)
        return response


def _login_form(
    request: Request, sessions: Sessions, *, target: str, error: TacitError | None = None
) -> Response:
    nonce = secrets.token_hex(16)
    values: dict[str, Any] = {"csrf": sessions.csrf_token(nonce), "next": _local(target)}
    code = 200 if error is None else error.status
    response = render("login.html", code=code, error=error, **values)
    set_cookie(response, request, LOGIN_COOKIE, nonce, path="/login")
    return response


def _local(target: str) -> str:
    # Browsers read // and /\ as the start of another host's address.
    safe = target.startswith("/") and target[1:2] not in {"/", "\\"} and target.isprintable()
    return target if safe else "/"
