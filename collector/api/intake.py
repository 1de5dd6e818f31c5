"""Intake: one request of the feedback API, from who sends it to what became of each event.

    who sends? ─▶ read and unpack ─▶ cut into events ─▶ rate limit ─▶ check each ─▶ ingest ─▶ answer

``202`` means durable. A single event that cannot be taken is a 4xx; in a batch each item has its
own status, and the answer is ``207`` when not all are queued.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, TypeVar

import pydantic_core
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from collector.api.admission import Admission
from collector.api.bodies import Body, read_body, split_body
from collector.ingest import Ingestor, Outcome, Prepared, prepare
from collector.monitoring.metrics import IngestCounters
from tacit.errors import ConflictError, TacitError, TooLargeError
from tacit.http import error_fields
from tacit.principal import Principal

_CHECK_IN_THREAD_BYTES = 256 * 1024
"""Checking more than this takes long enough for other requests to notice."""
T = TypeVar("T")
_QUEUED = b'{"event_id":"%s","status":"queued"}'


class Intake:
    """Takes requests; one for the whole application."""

    def __init__(self, ingestor: Ingestor, admission: Admission, counters: IngestCounters) -> None:
        self._ingestor = ingestor
        self._admission = admission
        self._counters = counters
        self._limits = ingestor.settings.collector

    async def take(self, request: Request) -> Response:
        """The answer to ``request``.

        Raises NotAuthenticatedError, NotAllowedError, TooLargeError, InvalidInputError,
        RateLimitedError, ConflictError, UnavailableError.
        """
        with self._refusals_counted():
            sender = await self._admission.sender(request)
            raw = await read_body(request, limit_bytes=self._limits.max_request_bytes)
            body = await self._aside(len(raw), split_body, raw, request)
            return await self._answer(body, sender, num_bytes=len(raw))

    async def take_from(self, sender: Principal, body: Body) -> Response:
        """The answer to events whose sender is known otherwise, as a webhook's is by its signature.

        Raises as ``take`` does.
        """
        with self._refusals_counted():
            num_bytes = sum(map(len, body.items))
            return await self._answer(body, sender, num_bytes=num_bytes)

    @contextmanager
    def _refusals_counted(self) -> Iterator[None]:
        try:
            yield
        except TacitError as error:
            self._counters.count_rejected(type(error).__name__)
            raise

    async def _answer(self, body: Body, sender: Principal, *, num_bytes: int) -> Response:
        self._require_few(body)
        self._admission.take(sender, len(body.items))
        if body.single:
            return await self._take_single(body, sender)
        return await self._take_batch(await self._aside(num_bytes, self._check_all, body, sender))

    async def _aside(self, num_bytes: int, work: Callable[..., T], *arguments: Any) -> T:
        """What ``work`` returns, done in a thread if other requests would notice it."""
        if num_bytes > _CHECK_IN_THREAD_BYTES:
            return await run_in_threadpool(work, *arguments)
        return work(*arguments)

    def _require_few(self, body: Body) -> None:
        limit = self._limits.max_events_per_request
        if len(body.items) > limit:
            raise TooLargeError(
                f"at most {limit} events in a request",
                got=str(len(body.items)),
                mend="Send smaller batches.",
            )

    async def _take_single(self, body: Body, sender: Principal) -> Response:
        try:
            event = self._check(body.items[0], body, sender)
            (outcome,) = await self._ingestor.accept_prepared([event])
        except TacitError as error:
            if error.status < HTTPStatus.INTERNAL_SERVER_ERROR:
                self._counters.count_events("rejected")
            raise
        self._counters.count_events(outcome)
        if outcome == "conflict":
            raise _conflict(event)
        # A duplicate gets the answer of the first time: its sender may never have seen that one.
        return _json(_QUEUED % event.event_id.encode(), HTTPStatus.ACCEPTED)

    async def _take_batch(self, checked: Sequence[Prepared | TacitError]) -> Response:
        events = [each for each in checked if isinstance(each, Prepared)]
        outcomes = await self._ingestor.accept_prepared(events) if events else ()
        self._count(checked, outcomes)
        results = [
            {"index": index, **answer} for index, answer in enumerate(_answers(checked, outcomes))
        ]
        whole = len(events) == len(checked) and "conflict" not in outcomes
        status = HTTPStatus.ACCEPTED if whole else HTTPStatus.MULTI_STATUS
        return _json(pydantic_core.to_json({"results": results}), status)

    def _check_all(self, body: Body, sender: Principal) -> list[Prepared | TacitError]:
        checked: list[Prepared | TacitError] = []
        for item in body.items:
            try:
                checked.append(self._check(item, body, sender))
            except TacitError as error:
                checked.append(error)
        return checked

    def _check(self, item: bytes, body: Body, sender: Principal) -> Prepared:
        event = body.parse(item)
        sender.require_event(event)
        return prepare(event, self._ingestor.settings)

    def _count(self, checked: Sequence[Prepared | TacitError], outcomes: Sequence[Outcome]) -> None:
        for outcome, num_events in Counter(outcomes).items():
            self._counters.count_events(outcome, num_events)
        errors = [type(each).__name__ for each in checked if isinstance(each, TacitError)]
        if errors:
            self._counters.count_events("rejected", len(errors))
        for reason, num_events in Counter(errors).items():
            self._counters.count_rejected(reason, num_events)


def _answers(
    checked: Sequence[Prepared | TacitError], outcomes: Sequence[Outcome]
) -> Iterator[dict[str, Any]]:
    left = iter(outcomes)
    for each in checked:
        if isinstance(each, TacitError):
            yield {"event_id": None, "status": "rejected", "error": error_fields(each)}
        elif next(left) == "conflict":
            error = error_fields(_conflict(each))
            yield {"event_id": each.event_id, "status": "conflict", "error": error}
        else:
            yield {"event_id": each.event_id, "status": "queued"}


def _conflict(event: Prepared) -> ConflictError:
    return ConflictError(
        f"the body first sent as {event.event_id}, or a new event_id",
        got="another body under the same event_id",
        mend="Make a new event_id for each event; retry with the same bytes.",
    )


def _json(content: bytes, status: HTTPStatus) -> Response:
    return Response(content, status, media_type="application/json")
