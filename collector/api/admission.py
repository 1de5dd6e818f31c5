"""Admission: who sends, and whether they may send this much now.

In: a request with an API key or a feedback token. Out: a ``Principal`` with scope ``send``, or a
401, 403 or 429. Whoever is looked up is remembered for a second at most: a key that was revoked is
out within that second, and a busy sender costs no query a request.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from collector.api.rate_limit import RateLimiter
from collector.api.tokens import FeedbackTokens
from tacit.config import CollectorSettings
from tacit.errors import NotAuthenticatedError, RateLimitedError
from tacit.http import bearer_credential
from tacit.keys import KeyStore
from tacit.principal import Principal, Scope

CACHE_TTL_S = 1.0
_MAX_CACHED = 4_096
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
        self._clock = clock
        self._known = _Known(clock)
        self._asked: dict[bytes, asyncio.Task[Principal]] = {}
        burst_s = settings.rate_limit_burst_s
        self._key_limiter = RateLimiter(burst_s=burst_s, clock=clock)
        self._token_limiter = RateLimiter(burst_s=burst_s, clock=clock)

    async def sender(self, request: Request) -> Principal:
        """Who sends ``request``: the holder of a key with scope ``send``, or of a feedback token.

        Raises NotAuthenticatedError, NotAllowedError without the scope, and UnavailableError when
        the database does not answer.
        """
        credential = _credential(request)
        # The hash, so that a dump of this process's memory holds no key.
        digest = hashlib.sha256(credential.encode()).digest()
        principal, is_fresh = self._known.get(digest)
        if principal is None:
            principal = await asyncio.shield(self._looking_up(digest, credential))
        elif not is_fresh:
            # Asked again while the answer still holds, so that no request waits for it.
            self._looking_up(digest, credential)
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

    def _looking_up(self, digest: bytes, credential: str) -> "asyncio.Task[Principal]":
        """One question to the database, however many requests wait for its answer."""
        loop = asyncio.get_running_loop()
        task = self._asked.get(digest)
        if task is None or task.get_loop() is not loop:
            task = loop.create_task(self._ask(digest, credential))
            task.add_done_callback(lambda done: self._settle(digest, done))
            self._asked[digest] = task
        return task

    async def _ask(self, digest: bytes, credential: str) -> Principal:
        asked_at = self._clock()
        principal = await run_in_threadpool(self._look_up, credential)
        self._known.put(digest, principal, asked_at)
        return principal

    def _settle(self, digest: bytes, done: "asyncio.Task[Principal]") -> None:
        if self._asked.get(digest) is done:
            del self._asked[digest]
        # Looked at here, because nobody may be waiting for it any more.
        if not done.cancelled() and isinstance(done.exception(), NotAuthenticatedError):
            self._known.forget(digest)

    def _look_up(self, credential: str) -> Principal:
        # The text of a key has two dots as well, so its first part decides.
        if credential.startswith("tacit."):
            return self._keys.authenticate(credential)
        if credential.count(".") == 2:
            return self._tokens.verify(credential)
        return self._keys.authenticate(credential)


class _Known:
    """Principals by the hash of what they showed, for ``CACHE_TTL_S``; bounded."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._entries: dict[bytes, tuple[float, Principal]] = {}

    def get(self, digest: bytes) -> tuple[Principal | None, bool]:
        """Who it is, and whether that was asked less than half of its time ago."""
        entry = self._entries.get(digest)
        left_s = 0.0 if entry is None else entry[0] - self._clock()
        if entry is None or left_s <= 0:
            return None, False
        return entry[1], left_s > CACHE_TTL_S / 2

    def forget(self, digest: bytes) -> None:
        self._entries.pop(digest, None)

    def put(self, digest: bytes, principal: Principal, asked_at: float) -> None:
        if len(self._entries) >= _MAX_CACHED:
            # Oldest first, since all live as long.
            self._entries = dict(list(self._entries.items())[_MAX_CACHED // 2 :])
        self._entries.pop(digest, None)
        # Counted from before the question, so that the answer is never older than that.
        self._entries[digest] = (asked_at + CACHE_TTL_S, principal)


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
