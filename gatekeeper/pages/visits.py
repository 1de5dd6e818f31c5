"""Who visits a page, and whether the form they send is theirs.

Reading needs scope ``read``, deciding ``review``. Every form carries a CSRF token bound to the
session.
"""

from fastapi import Request, Response

from gatekeeper.sessions import Login, Sessions, require_csrf
from tacit.contracts.base import Name
from tacit.keys import Scope

COOKIE = "tacit_session"
LOGIN_COOKIE = "tacit_login"


class Visits:
    """Reads logins from requests to the pages of one policy line."""

    def __init__(self, sessions: Sessions, *, policy: Name) -> None:
        self.sessions = sessions
        self._policy = policy

    def reader(self, request: Request) -> Login:
        """Who reads. Raises NotAuthenticatedError, NotAllowedError."""
        login = self._login(request)
        login.principal.require_target(policy=self._policy)
        return login

    def reviewer(self, request: Request, csrf: str) -> Login:
        """Who sends a form that decides. Raises NotAuthenticatedError, NotAllowedError."""
        login = self._login(request)
        require_csrf(login.csrf, csrf)
        login.principal.require(Scope.REVIEW)
        login.principal.require_target(policy=self._policy)
        return login

    def _login(self, request: Request) -> Login:
        login = self.sessions.read(request.cookies.get(COOKIE))
        # So that an error page leads on to the others.
        request.state.login = login
        return login


def may_review(login: Login) -> bool:
    """Whether the forms that decide are shown."""
    return bool({Scope.REVIEW, Scope.ADMIN} & login.principal.scopes)


def set_cookie(
    response: Response, request: Request, name: str, value: str, *, path: str = "/"
) -> None:
    """A cookie that no script and no other site sees."""
    secure = request.url.scheme == "https"
    response.set_cookie(name, value, path=path, httponly=True, samesite="strict", secure=secure)
