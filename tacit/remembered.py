"""Who holds a credential, remembered for a second at most, so that a request costs no query.

A key that was revoked is out within that second.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable

from starlette.concurrency import run_in_threadpool

from tacit.errors import NotAuthenticatedError
from tacit.principal import Principal

REMEMBERED_S = 1.0
_MAX_REMEMBERED = 4_096


class RememberedPrincipals:
    """Asks ``look_up``, on a thread, for whom it does not remember. For event loops."""

    def __init__(
        self,
        look_up: Callable[[str], Principal],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``look_up`` gets the credential and raises NotAuthenticatedError if it is no good."""
        self._look_up = look_up
        self._clock = clock
        self._known = _Known(clock)
        self._asked: dict[bytes, asyncio.Task[Principal]] = {}

    async def holder(self, credential: str) -> Principal:
        """Who holds ``credential``. Raises what ``look_up`` raises."""
        # The hash, so that a dump of this process's memory holds no key.
        digest = hashlib.sha256(credential.encode()).digest()
        principal, is_fresh = self._known.get(digest)
        if principal is None:
            return await asyncio.shield(self._looking_up(digest, credential))
        if not is_fresh:
            # Asked again while the answer still holds, so that no request waits for it.
            self._looking_up(digest, credential)
        return principal

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


class _Known:
    """Principals by the hash of what they showed, for ``REMEMBERED_S``; bounded."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._entries: dict[bytes, tuple[float, Principal]] = {}

    def get(self, digest: bytes) -> tuple[Principal | None, bool]:
        """Who it is, and whether that was asked less than half of its time ago."""
        entry = self._entries.get(digest)
        left_s = 0.0 if entry is None else entry[0] - self._clock()
        if entry is None or left_s <= 0:
            return None, False
        return entry[1], left_s > REMEMBERED_S / 2

    def forget(self, digest: bytes) -> None:
        self._entries.pop(digest, None)

    def put(self, digest: bytes, principal: Principal, asked_at: float) -> None:
        if len(self._entries) >= _MAX_REMEMBERED:
            # Oldest first, since all live as long.
            self._entries = dict(list(self._entries.items())[_MAX_REMEMBERED // 2 :])
        self._entries.pop(digest, None)
        # Counted from before the question, so that the answer is never older than that.
        self._entries[digest] = (asked_at + REMEMBERED_S, principal)
