"""Logins on the review pages: a signed cookie that names a key, never holds it.

The key is looked up at every request, so revoking it ends its sessions. A cookie says when it
ends; its random part is what CSRF tokens are bound to.
"""

import secrets
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from itsdangerous import BadData, URLSafeSerializer
from pydantic import ValidationError

from tacit.contracts import Part, utc_now
from tacit.errors import NotAllowedError, NotAuthenticatedError
from tacit.keys import KeyStore, Principal, Scope, key_id_of
from tacit.secrets_file import load_or_create_secret

SECRET_NAME = "session.secret"


class _Cookie(Part):
    key: str
    """Id of the API key."""
    nonce: str
    ends: float
    """Seconds since the epoch."""


class Login(NamedTuple):
    """Who is logged in, and what their forms must carry."""

    principal: Principal
    csrf: str


class Sessions:
    """Issues and checks cookies. One that was logged out is refused until the process ends."""

    def __init__(
        self,
        keys: KeyStore,
        *,
        secret: str,
        ttl_s: float,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._keys = keys
        self._ttl_s = ttl_s
        self._clock = clock
        self._cookies = URLSafeSerializer(secret, salt="tacit-session")
        self._tokens = URLSafeSerializer(secret, salt="tacit-csrf")
        self._ended: dict[str, float] = {}

    def open(self, key: str) -> str:
        """Cookie for the holder of ``key``.

        Raises NotAuthenticatedError; NotAllowedError without scope ``read``.
        """
        self._keys.authenticate(key).require(Scope.READ)
        ends = self._clock().timestamp() + self._ttl_s
        content = _Cookie(key=key_id_of(key), nonce=secrets.token_hex(16), ends=ends)
        return _text(self._cookies.dumps(content.model_dump()))

    def read(self, cookie: str | None) -> Login:
        """Who a cookie belongs to. Raises NotAuthenticatedError."""
        content = self._load(cookie)
        principal = self._keys.holder(content.key)
        principal.require(Scope.READ)
        return Login(principal, self.csrf_token(content.nonce))

    def close(self, cookie: str | None) -> None:
        """Log out: the cookie is refused from now on."""
        content = self._load(cookie)
        now = self._clock().timestamp()
        self._ended = {nonce: ends for nonce, ends in self._ended.items() if ends > now}
        self._ended[content.nonce] = content.ends

    def csrf_token(self, nonce: str) -> str:
        """Token that only forms of the session with this nonce carry."""
        return _text(self._tokens.dumps(nonce))

    def _load(self, cookie: str | None) -> _Cookie:
        try:
            content = _Cookie.model_validate(self._cookies.loads(cookie or ""))
        except (BadData, ValidationError) as error:
            raise _not_logged_in("no session, or one that was altered") from error
        if content.ends <= self._clock().timestamp():
            raise _not_logged_in("a session that has ended")
        if content.nonce in self._ended:
            raise _not_logged_in("a session that was logged out")
        return content


def require_csrf(expected: str, got: str) -> None:
    """Raises NotAllowedError unless the form came from a page of the same session."""
    if not secrets.compare_digest(expected.encode(), got.encode()):
        raise NotAllowedError(
            "a form sent from a page of this session",
            got="a missing or foreign token",
            mend="Open the page again and send its form.",
        )


def session_secret(folder: Path) -> str:
    """The secret that signs cookies, kept in ``folder`` so that a restart logs nobody out."""
    return load_or_create_secret(folder / SECRET_NAME)


def _text(signed: str | bytes) -> str:
    return signed if isinstance(signed, str) else signed.decode()


def _not_logged_in(got: str) -> NotAuthenticatedError:
    return NotAuthenticatedError("a login", got=got, mend="Log in with an API key.")
