"""The SDK a product installs: says what happened to an answer, and never loses it on the way.

In: an ``openai`` response (or its id) and what the product knows about it. Out: feedback events,
sent in the background. Ids are made before the first try, so a retry never counts twice.

    with TacitClient("http://127.0.0.1:8000", api_key=key, source="helpdesk") as tacit:
        tacit.correct(response, "shipping", subject_id="u-1")

Needs httpx and pydantic alone.
"""

import atexit
import logging
import os
import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, TypeVar

import httpx
from pydantic import ValidationError

from collector.outbox import Letter, Outbox, Rejection
from collector.responses import interaction_id_of, text_of
from tacit.contracts import (
    Correction,
    Critique,
    FeedbackEvent,
    Outcome,
    Preference,
    Rating,
    RatingScale,
    utc_now,
)
from tacit.contracts.base import Part
from tacit.errors import InvalidInputError, UnavailableError

logger = logging.getLogger(__name__)

AT_EXIT_TIMEOUT_S = 10.0
P = TypeVar("P", bound=Part)


class TacitClient:
    """Sends feedback; safe to share between threads."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        source: str,
        policy: str = "default",
        subject_id: str | None = None,
        timeout_s: float = 10.0,
        max_queue: int = 10_000,
        max_batch_events: int = 200,
        max_batch_bytes: int = 1024 * 1024,
        queue_timeout_s: float = 5.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """``api_key`` is by default TACIT_API_KEY; ``subject_id`` is used where a call names none.

        When ``max_queue`` events wait, a call blocks for up to ``queue_timeout_s`` and then raises
        UnavailableError.
        """
        self.source = source
        self.policy = policy
        self.subject_id = subject_id
        self._queue_timeout_s = queue_timeout_s
        self._http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {api_key or os.environ.get('TACIT_API_KEY', '')}"},
            timeout=timeout_s,
            transport=transport,
        )
        self._outbox = Outbox(
            self._http,
            max_queue=max_queue,
            max_batch_events=max_batch_events,
            max_batch_bytes=max_batch_bytes,
        )
        self._num_reported = 0
        self._closed = False
        atexit.register(self._close_at_exit)

    @property
    def rejected(self) -> list[Rejection]:
        """Events the service will never take, oldest first, each with its reason."""
        return list(self._outbox.rejected)

    def correct(self, response: Any, completion: str, **about: Any) -> str:
        """``completion`` would have been right. Returns the event id, as all of these do.

        ``response`` is an ``openai`` response or an interaction id. ``about`` takes ``subject_id``,
        ``episode_id``, ``tags``, ``occurred_at`` and ``event_id``.
        """
        return self._say(response, Correction, {"completion": completion}, **about)

    def outcome(
        self, response: Any, value: bool | float, *, metric: str = "resolved", **about: Any
    ) -> str:
        """The task succeeded or failed, or how far it got, in [-1, 1]."""
        return self._say(response, Outcome, {"metric": metric, "value": value}, **about)

    def prefer(self, chosen: Any, rejected: Any, *, response: Any = None, **about: Any) -> str:
        """``chosen`` is the better answer to one prompt. Each is a response or a text.

        The prompt is that of ``response``, or else of whichever of the two is not a text.
        """
        texts = {"chosen": text_of(chosen), "rejected": text_of(rejected)}
        sides = [side for side in (response, rejected, chosen) if not isinstance(side, str)]
        anchor = response if isinstance(response, str) else next(filter(None, sides), None)
        return self._say(anchor, Preference, texts, **about)

    def rate(
        self, response: Any, value: float, *, low: float = 0, high: float = 1, **about: Any
    ) -> str:
        """A rating on a scale; thumbs are 0 and 1."""
        scale = _checked(RatingScale, {"low": low, "high": high})
        return self._say(response, Rating, {"value": value, "scale": scale}, **about)

    def critique(self, response: Any, text: str, **about: Any) -> str:
        """What was wrong or right, in words."""
        return self._say(response, Critique, {"text": text}, **about)

    def send(self, event: FeedbackEvent) -> str:
        """Queue an event made by hand; returns its id. Raises UnavailableError when full."""
        return self.send_many([event])[0]

    def send_many(self, events: Iterable[FeedbackEvent]) -> list[str]:
        """Queue events in order; returns their ids."""
        if self._closed:
            raise UnavailableError("an open client", got="one that was closed")
        letters = [Letter(event.event_id, event.model_dump_json().encode()) for event in events]
        self._outbox.put(letters, timeout_s=self._queue_timeout_s)
        return [letter.event_id for letter in letters]

    def flush(self, timeout_s: float = 30.0) -> None:
        """Wait until every event is acknowledged, which is to say durable.

        Raises UnavailableError if some are not after ``timeout_s``, and InvalidInputError if the
        service rejected any since the last call; ``rejected`` has all of them.
        """
        num_left = self._outbox.wait_until_empty(timeout_s=timeout_s)
        if num_left:
            raise UnavailableError(
                f"all events acknowledged within {timeout_s:g} s",
                got=f"{num_left} still waiting; last error: {self._outbox.last_error or 'none'}",
                mend=f"Check that Tacit answers at {self._http.base_url}; sending goes on.",
            )
        fresh = self._outbox.rejected[self._num_reported :]
        self._num_reported += len(fresh)
        if fresh:
            raise InvalidInputError(
                "all events accepted",
                got=f"{len(fresh)} turned away; the first, {fresh[0].event_id}, as "
                f"{fresh[0].status}: {fresh[0].error}",
                mend="`client.rejected` has each with its reason.",
            )

    def close(self, timeout_s: float = 30.0) -> None:
        """Flush and stop. Raises what ``flush`` raises; the client is closed all the same."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self._close_at_exit)
        try:
            self.flush(timeout_s)
        finally:
            self._outbox.stop()
            self._http.close()

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
            self._close_quietly()

    def _close_at_exit(self) -> None:
        self._close_quietly(AT_EXIT_TIMEOUT_S)

    def _close_quietly(self, timeout_s: float = AT_EXIT_TIMEOUT_S) -> None:
        try:
            self.close(timeout_s)
        except (UnavailableError, InvalidInputError) as error:
            logger.error("feedback was lost at exit: %s", error)

    def _say(
        self,
        response: Any,
        kind: type[Part],
        fields: Mapping[str, Any],
        *,
        subject_id: str | None = None,
        episode_id: str | None = None,
        tags: Mapping[str, str] | None = None,
        occurred_at: datetime | None = None,
        event_id: str | None = None,
    ) -> str:
        about = {
            "event_id": event_id or uuid.uuid4().hex,
            "policy": self.policy,
            "source": self.source,
            "subject_id": subject_id or self.subject_id,
            "occurred_at": occurred_at or utc_now(),
            "interaction_id": interaction_id_of(response),
            "episode_id": episode_id,
            "tags": dict(tags or {}),
        }
        feedback = _checked(kind, fields)
        return self.send(_checked(FeedbackEvent, {**about, "feedback": feedback}))


def _checked(kind: type[P], fields: Mapping[str, Any]) -> P:
    try:
        return kind(**fields)
    except ValidationError as error:
        raise InvalidInputError.of_fields(error.errors(), what=f"a {kind.__name__}") from error
