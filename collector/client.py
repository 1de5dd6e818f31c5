"""The SDK a product installs: says what happened to an answer, and never loses it on the way.

In: an ``openai`` response (or its id) and what the product knows about it. Out: feedback events,
sent in the background. Ids are made before the first try, so a retry never counts twice.

    with TacitClient("http://127.0.0.1:8000", api_key=key, source="helpdesk") as tacit:
        tacit.correct(response, "shipping", subject_id="u-1")

Needs httpx and pydantic alone. :mod:`collector.async_client` has the same for asyncio.
"""

import atexit
import logging
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

import httpx

from collector.async_client import AsyncTacitClient
from collector.sdk.answers import FeedbackStatus, FeedbackToken, Rejection, read
from collector.sdk.client_base import ClientBase
from collector.sdk.courier import Courier
from collector.sdk.letters import LetterQueue
from collector.sdk.outbox import Outbox
from tacit.contracts import FeedbackEvent
from tacit.errors import InvalidInputError, UnavailableError

__all__ = ["AsyncTacitClient", "FeedbackStatus", "FeedbackToken", "Rejection", "TacitClient"]

logger = logging.getLogger(__name__)

AT_EXIT_TIMEOUT_S = 10.0


class TacitClient(ClientBase[str, httpx.BaseTransport]):
    """Sends feedback; safe to share between threads, and with children that are forked."""

    def send(self, event: FeedbackEvent) -> str:
        """Queue an event made by hand; returns its id. Raises UnavailableError when full."""
        return self.send_many([event])[0]

    def send_many(self, events: Iterable[FeedbackEvent]) -> list[str]:
        """Queue events in order; returns their ids.

        After an UnavailableError, the first few may be queued: send all of them again, with the
        ids they have, and each counts once.
        """
        event_ids: list[str] = []
        for letters in self._chunks(events):
            if not self._outbox.put(letters, timeout_s=self._queue_timeout_s):
                raise self._no_room()
            event_ids.extend(letter.event_id for letter in letters)
        return event_ids

    def flush(self, timeout_s: float = 30.0) -> None:
        """Wait until every event sent before is acknowledged, which is to say durable in Tacit.

        Raises UnavailableError if some are not after ``timeout_s``, and InvalidInputError if the
        service rejected any since the last call; ``rejected`` has the reasons.
        """
        num_left = self._outbox.wait_until_settled(timeout_s=timeout_s)
        self._require_settled(num_left, timeout_s)

    def close(self, timeout_s: float | None = None) -> None:
        """Flush and stop. Raises what ``flush`` raises; the client is closed all the same.

        Waits 30 s by default. With a spool 2 s, and what is left then is no error: it stays on
        disk for the next process.
        """
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self._close_at_exit)
        timeout_s = self._close_timeout_s(timeout_s)
        self._outbox.wait_until_settled(timeout_s=timeout_s)
        self._outbox.stop(timeout_s=self._http_options["timeout"] + 1.0)
        # Counted now: a call that waited for room may have found it in between.
        self._require_closed(self.num_waiting, timeout_s)

    def status(self, event_id: str) -> FeedbackStatus:
        """What became of an event that was acknowledged.

        Raises NotFoundError for one the service does not know, UnavailableError if it is away.
        """
        return read(FeedbackStatus, self._ask(self._status_request(event_id)))

    def token(
        self, response: Any, *, subject_id: str | None = None, expires_in_s: float | None = None
    ) -> FeedbackToken:
        """A token with which a browser may send feedback of ``subject_id`` on this answer alone.

        Raises the TacitError the service answers with, UnavailableError if it is away.
        """
        request = self._token_request(response, subject_id, expires_in_s)
        return read(FeedbackToken, self._ask(request))

    def __enter__(self) -> "TacitClient":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self._close_at_exit()

    def _make_outbox(self) -> None:
        self._outbox = Outbox(
            self._open_queue, self._make_courier, lambda: httpx.Client(**self._http_options)
        )

    @property
    def _queue(self) -> LetterQueue:
        return self._outbox.queue

    @property
    def _courier(self) -> Courier:
        return self._outbox.courier

    def _ask(self, request: Mapping[str, Any]) -> httpx.Response:
        self._outbox.start()
        try:
            return self._outbox.http.request(**request)
        except httpx.HTTPError as error:
            raise self._away(error) from error

    def _close_at_exit(self) -> None:
        try:
            self.close(min(AT_EXIT_TIMEOUT_S, self._close_timeout_s(None)))
        except (UnavailableError, InvalidInputError) as error:
            logger.error("feedback was lost at exit: %s", error)
