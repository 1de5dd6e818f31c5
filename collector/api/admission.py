"""Admission: who sends, and whether they may send this much now.

In: a request with an API key or a feedback token. Out: a ``Principal`` with scope ``send``, or a
401, 403 or 429. Whoever is looked up is remembered for a second at most: a key that was revoked is
out within that second, and a busy sender costs no query a request.
"""

import time
from collections.abc import Callable

from starlette.requests import Request

from collector.api.rate_limit import RateLimiter
from collector.api.tokens import FeedbackTokens
from tacit.config import CollectorSettings
from tacit.errors import NotAuthenticatedError, RateLimitedError
from tacit.http import bearer_credential
from tacit.keys import KeyStore
from tacit.principal import Principal, Scope
from tacit.remembered import RememberedPrincipals

_MAX_CREDENTIAL_CHARACTERS = 4_096


class Admission:
    """Lets senders in; one for the whole application, safe to share between threads."""

    def __init__(
        self,
        keys: KeyStore,
        tokens: FeedbackTokens,
        settings: CollectorSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = keys
        self._tokens = tokens
        self._settings = settings
        self._senders = RememberedPrincipals(self._look_up, clock=clock)
        burst_s = settings.rate_limit_burst_s
        self._key_limiter = RateLimiter(burst_s=burst_s, clock=clock)
        self._token_limiter = RateLimiter(burst_s=burst_s, clock=clock)

    async def sender(self, request: Request) -> Principal:
        """Who sends ``request``: the holder of a key with scope ``send``, or of a feedback token.

        Raises NotAuthenticatedError, NotAllowedError without the scope, and UnavailableError when
        the database does not answer.
        """
        principal = await self._senders.holder(_credential(request))
        principal.require(Scope.SEND)
        return principal

    def take(self, principal: Principal, num_events: int) -> None:
        """Count ``num_events`` against the limits of ``principal``.

        Raises RateLimitedError; then nothing was counted against its key.
        """
        if principal.token_id is not None:
            rate_per_s = self._settings.token_rate_limit_per_s
            _require_rate(self._token_limiter, principal.token_id, num_events, rate_per_s, "token")
        limit = principal.rate_limit_per_s or self._settings.rate_limit_per_s
        if limit is not None:
            _require_rate(self._key_limiter, principal.key_id, num_events, limit, "key")

    def _look_up(self, credential: str) -> Principal:
        # The text of a key has two dots as well, so its first part decides.
        if credential.startswith("tacit."):
            return self._keys.authenticate(credential)
        if credential.count(".") == 2:
            return self._tokens.verify(credential)
        return self._keys.authenticate(credential)


def _credential(request: Request) -> str:
    credential = bearer_credential(request)
    if credential is None or len(credential) > _MAX_CREDENTIAL_CHARACTERS:
        raise NotAuthenticatedError(
            "an API key or a feedback token in `Authorization: Bearer …`",
            got="none" if credential is None else f"{len(credential)} characters",
            mend="`tacit keys create` makes a key; products read TACIT_API_KEY.",
        )
    return credential


def _require_rate(
    limiter: RateLimiter, key: str, num_events: int, rate_per_s: float, whose: str
) -> None:
    wait_s = limiter.take(key, num_events, rate_per_s=rate_per_s)
    if wait_s > 0:
        raise RateLimitedError(
            f"at most {rate_per_s:g} events a second from this {whose}",
            got=f"{num_events} more before its time",
            mend=f"Send again in {wait_s:.1f} s.",
            retry_after_s=wait_s,
        )
