"""Intake: one request of the feedback API, from who sends it to what became of each event.

    who sends? ─▶ read and unpack ─▶ cut into events ─▶ rate limit ─▶ check each ─▶ ingest ─▶ answer

``202`` means durable. A single event that cannot be taken is a 4xx; in a batch each item has its
own status, and the answer is ``207`` when not all are queued.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import pydantic_core
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from collector.admission import Admission
from collector.bodies import Body, read_body, split_body
from collector.ingest import Ingestor, Prepared, Receipt, prepare
from collector.metrics import IngestCounters
from tacit.errors import ConflictError, TacitError, TooLargeError
from tacit.http import error_fields
from tacit.principal import Principal

_CHECK_IN_THREAD_BYTES = 64 * 1024
"""Checking more than this takes long enough for other requests to notice."""
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
            large = len(raw) > _CHECK_IN_THREAD_BYTES
            body = (
                await run_in_threadpool(split_body, raw, request)
                if large
                else split_body(raw, request)
            )
            return await self._answer(body, sender, large=large)

    async def take_from(self, sender: Principal, body: Body) -> Response:
        """The answer to events whose sender is known otherwise, as a webhook's is by its signature.

        Raises as ``take`` does.
        """
        with self._refusals_counted():
            return await self._answer(body, sender, large=True)

    @contextmanager
    def _refusals_counted(self) -> Iterator[None]:
        try:
            yield
        except TacitError as error:
            self._counters.count_rejected(type(error).__name__)
            raise

    async def _answer(self, body: Body, sender: Principal, *, large: bool) -> Response:
        self._require_few(body)
        self._admission.take(sender, len(body.items))
        if body.single:
            return await self._take_single(body, sender)
        checked = (
            await run_in_threadpool(self._check_all, body, sender)
            if large
            else self._check_all(body, sender)
        )
        return await self._take_batch(checked)

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
            prepared = self._check(body.items[0], body, sender)
            (receipt,) = await self._ingestor.accept_prepared([prepared])
        except TacitError as error:
            if error.status < HTTPStatus.INTERNAL_SERVER_ERROR:
                self._counters.count_events("rejected")
            raise
        self._counters.count_events(receipt.status)
        if receipt.status == "conflict":
            raise _conflict(receipt)
        # A duplicate gets the answer of the first time: its sender may never have seen that one.
        return _json(_QUEUED % receipt.event_id.encode(), HTTPStatus.ACCEPTED)

    async def _take_batch(self, checked: Sequence[Prepared | TacitError]) -> Response:
        events = [each for each in checked if isinstance(each, Prepared)]
        receipts = await self._ingestor.accept_prepared(events) if events else ()
        self._count(checked, receipts)
        results = [
            {"index": index, **answer} for index, answer in enumerate(_answers(checked, receipts))
        ]
        whole = len(events) == len(checked) and all(r.status != "conflict" for r in receipts)
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

    def _count(self, checked: Sequence[Prepared | TacitError], receipts: Sequence[Receipt]) -> None:
        outcomes = [receipt.status for receipt in receipts]
        for outcome in set(outcomes):
            self._counters.count_events(outcome, outcomes.count(outcome))
        errors = [type(each).__name__ for each in checked if isinstance(each, TacitError)]
        if errors:
            self._counters.count_events("rejected", len(errors))
        for reason in set(errors):
            self._counters.count_rejected(reason, errors.count(reason))


def _answers(
    checked: Sequence[Prepared | TacitError], receipts: Sequence[Receipt]
) -> Iterator[dict[str, Any]]:
    left = iter(receipts)
    for each in checked:
        if isinstance(each, TacitError):
            yield {"event_id": None, "status": "rejected", "error": error_fields(each)}
            continue
        receipt = next(left)
        if receipt.status == "conflict":
            error = error_fields(_conflict(receipt))
            yield {"event_id": receipt.event_id, "status": "conflict", "error": error}
        else:
            yield {"event_id": receipt.event_id, "status": "queued"}


def _conflict(receipt: Receipt) -> ConflictError:
    return ConflictError(
        f"the body first sent as {receipt.event_id}, or a new event_id",
        got="another body under the same event_id",
        mend="Make a new event_id for each event; retry with the same bytes.",
    )


def _json(content: bytes, status: HTTPStatus) -> Response:
    return Response(content, status, media_type="application/json")
