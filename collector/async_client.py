"""The SDK for asyncio: the same calls as :mod:`collector.client`, each of them to be awaited.

    async with AsyncTacitClient(url, api_key=key, source="helpdesk") as tacit:
        await tacit.correct(response, "shipping", subject_id="u-1")

One client belongs to one event loop.
"""

import atexit
import logging
from collections.abc import Coroutine, Iterable, Mapping
from types import TracebackType
from typing import Any

import httpx

from collector.sdk.answers import FeedbackStatus, FeedbackToken, read
from collector.sdk.async_outbox import AsyncOutbox
from collector.sdk.client_base import ClientBase
from collector.sdk.courier import Courier
from collector.sdk.letters import LetterQueue
from tacit.contracts import FeedbackEvent
from tacit.errors import InvalidInputError, UnavailableError

logger = logging.getLogger(__name__)


class AsyncTacitClient(ClientBase[Coroutine[Any, Any, str], httpx.AsyncBaseTransport]):
    """Sends feedback from one event loop; safe to cancel."""

    async def send(self, event: FeedbackEvent) -> str:
        """Queue an event made by hand; returns its id. Raises UnavailableError when full."""
        return (await self.send_many([event]))[0]

    async def send_many(self, events: Iterable[FeedbackEvent]) -> list[str]:
        """Queue events in order; returns their ids.

        After an UnavailableError or a cancellation, the first few may be queued: send all of them
        again, with the ids they have, and each counts once.
        """
        event_ids: list[str] = []
        for letters in self._chunks(events):
            if not await self._outbox.put(letters, timeout_s=self._queue_timeout_s):
                raise self._no_room()
            event_ids.extend(letter.event_id for letter in letters)
        return event_ids

    async def flush(self, timeout_s: float = 30.0) -> None:
        """Wait until every event sent before is acknowledged, which is to say durable in Tacit.

        Raises UnavailableError if some are not after ``timeout_s``, and InvalidInputError if the
        service rejected any since the last call; ``rejected`` has the reasons.
        """
        num_left = await self._outbox.wait_until_settled(timeout_s=timeout_s)
        self._require_settled(num_left, timeout_s)

    async def close(self, timeout_s: float | None = None) -> None:
        """Flush and stop. Raises what ``flush`` raises; the client is closed all the same.

        Waits 30 s by default. With a spool 2 s, and what is left then is no error: it stays on
        disk for the next process.
        """
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self._close_at_exit)
        timeout_s = self._close_timeout_s(timeout_s)
        try:
            await self._outbox.wait_until_settled(timeout_s=timeout_s)
        finally:
            await self._outbox.stop()
        # Counted now: a call that waited for room may have found it in between.
        self._require_closed(self.num_waiting, timeout_s)

    async def status(self, event_id: str) -> FeedbackStatus:
        """What became of an event that was acknowledged.

        Raises NotFoundError for one the service does not know, UnavailableError if it is away.
        """
        return read(FeedbackStatus, await self._ask(self._status_request(event_id)))

    async def token(
        self, response: Any, *, subject_id: str | None = None, expires_in_s: float | None = None
    ) -> FeedbackToken:
        """A token with which a browser may send feedback of ``subject_id`` on this answer alone.

        Raises the TacitError the service answers with, UnavailableError if it is away.
        """
        request = self._token_request(response, subject_id, expires_in_s)
        return read(FeedbackToken, await self._ask(request))

    async def __aenter__(self) -> "AsyncTacitClient":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            await self.close()
            return
        try:
            await self.close(self._close_timeout_s(None))
        except (UnavailableError, InvalidInputError) as lost:
            logger.error("feedback was lost: %s", lost)

    def _make_outbox(self) -> None:
        queue = self._open_queue()
        http = httpx.AsyncClient(**self._http_options)
        self._outbox = AsyncOutbox(queue, self._make_courier(queue), http)

    @property
    def _queue(self) -> LetterQueue:
        return self._outbox.queue

    @property
    def _courier(self) -> Courier:
        return self._outbox.courier

    async def _ask(self, request: Mapping[str, Any]) -> httpx.Response:
        try:
            return await self._outbox.http.request(**request)
        except httpx.HTTPError as error:
            raise self._away(error) from error

    def _close_at_exit(self) -> None:
        # Too late for the event loop; with a spool nothing is lost.
        self._closed = True
        num_waiting = self._outbox.stop_without_loop()
        if num_waiting:
            logger.error(
                "%d events were not sent: `await client.close()` was not called%s",
                num_waiting,
                "; they stay in the spool" if self._persistent else "",
            )
