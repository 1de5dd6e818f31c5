"""The feedback API: one event, a JSON array or NDJSON in; what became of each out.

``202`` means durable. A single event that cannot be taken is a 4xx; in a batch each item has its
own status, and the answer is ``207`` when not all are queued.
"""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

import pydantic_core
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from collector.ingest import Ingestor, Receipt
from collector.parse import parse_event, require_admissible
from collector.store import EventStore
from tacit.contracts import EventStatus, FeedbackEvent
from tacit.contracts.base import Identifier, Name
from tacit.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    TacitError,
    TooLargeError,
)
from tacit.http import bearer_principal, error_fields
from tacit.keys import KeyStore, Principal, Scope


class _Body(NamedTuple):
    items: list[bytes]
    single: bool


def create_router(*, ingestor: Ingestor, store: EventStore, keys: KeyStore) -> APIRouter:
    """Routes of the feedback API; the app needs ``tacit.http.install_error_handlers``."""
    router = APIRouter(tags=["feedback"])

    @router.post("/v1/feedback", status_code=HTTPStatus.ACCEPTED)
    async def send_feedback(request: Request) -> JSONResponse:
        """Queue one event, or a batch as a JSON array or as NDJSON."""
        sender = await run_in_threadpool(_sender, keys, request)
        raw = await _read_limited(request, ingestor.settings.collector.max_request_bytes)
        kind = request.headers.get("content-type", "")
        # Parsing, the stream and the database all block, so none of it runs on the event loop.
        return await run_in_threadpool(_take, raw, kind, sender, ingestor)

    @router.get("/v1/feedback/{event_id}")
    def feedback_status(
        event_id: Identifier, request: Request, source: Name | None = None
    ) -> JSONResponse:
        """What became of an event."""
        reader = bearer_principal(keys, request)
        if Scope.READ not in reader.scopes:
            reader.require(Scope.SEND)
        reader.require_target(source=source)
        return JSONResponse(_status_of(store, source or reader.source, event_id, reader))

    return router


def _sender(keys: KeyStore, request: Request) -> Principal:
    principal = bearer_principal(keys, request)
    principal.require(Scope.SEND)
    return principal


async def _read_limited(request: Request, limit: int) -> bytes:
    """The body; raises TooLargeError as soon as ``limit`` is passed, not when all of it came."""
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise InvalidInputError("a body without Content-Encoding", got=encoding)
    chunks: list[bytes] = []
    num_bytes = 0
    async for chunk in request.stream():
        num_bytes += len(chunk)
        if num_bytes > limit:
            raise TooLargeError(
                f"a body of at most {limit} bytes", got="more", mend="Send smaller batches."
            )
        chunks.append(chunk)
    return b"".join(chunks)


def _take(raw: bytes, content_type: str, sender: Principal, ingestor: Ingestor) -> JSONResponse:
    body = _split(raw, content_type)
    limit = ingestor.settings.collector.max_events_per_request
    if len(body.items) > limit:
        raise TooLargeError(
            f"at most {limit} events in a request",
            got=str(len(body.items)),
            mend="Send smaller batches.",
        )
    if body.single:
        return _take_single(body.items[0], sender, ingestor)
    return _take_batch(body.items, sender, ingestor)


def _split(raw: bytes, content_type: str) -> _Body:
    if "ndjson" in content_type or "jsonl" in content_type:
        items = [line for line in raw.splitlines() if line.strip()]
    elif raw.lstrip()[:1] == b"[":
        items = [pydantic_core.to_json(item) for item in _parse_array(raw)]
    else:
        return _Body([raw], single=True)
    if not items:
        raise InvalidInputError("at least one event", got="none")
    return _Body(items, single=False)


def _parse_array(raw: bytes) -> Sequence[Any]:
    try:
        parsed: Sequence[Any] = pydantic_core.from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidInputError(
            "a JSON array of events", got=str(error), mend="NaN and infinity are not JSON."
        ) from error
    return parsed


def _checked(item: bytes, sender: Principal, ingestor: Ingestor) -> FeedbackEvent:
    event = parse_event(item)
    sender.require_target(source=event.source, policy=event.policy)
    require_admissible(event, ingestor.settings)
    return event


def _take_single(item: bytes, sender: Principal, ingestor: Ingestor) -> JSONResponse:
    event = _checked(item, sender, ingestor)
    (receipt,) = ingestor.accept([event])
    if receipt.status == "conflict":
        raise _conflict(receipt)
    return JSONResponse(_answer(receipt), HTTPStatus.ACCEPTED)


def _take_batch(items: Sequence[bytes], sender: Principal, ingestor: Ingestor) -> JSONResponse:
    answers: list[dict[str, Any]] = []
    events: list[FeedbackEvent] = []
    for item in items:
        try:
            events.append(_checked(item, sender, ingestor))
            answers.append({})
        except TacitError as error:
            answers.append({"event_id": None, "status": "rejected", "error": error_fields(error)})
    receipts = iter(ingestor.accept(events))
    results = [
        {"index": index, **(answer or _answer(next(receipts)))}
        for index, answer in enumerate(answers)
    ]
    whole = all(result["status"] == EventStatus.QUEUED for result in results)
    status = HTTPStatus.ACCEPTED if whole else HTTPStatus.MULTI_STATUS
    return JSONResponse({"results": results}, status)


def _answer(receipt: Receipt) -> dict[str, Any]:
    # A duplicate gets the answer of the first time: its sender may never have seen that one.
    if receipt.status != "conflict":
        return {"event_id": receipt.event_id, "status": EventStatus.QUEUED.value}
    error = error_fields(_conflict(receipt))
    return {"event_id": receipt.event_id, "status": "conflict", "error": error}


def _conflict(receipt: Receipt) -> ConflictError:
    return ConflictError(
        f"the body first sent as {receipt.event_id}, or a new event_id",
        got="another body under the same event_id",
        mend="Make a new event_id for each event; retry with the same bytes.",
    )


def _status_of(
    store: EventStore, source: str | None, event_id: str, reader: Principal
) -> dict[str, Any]:
    row = store.find(source, event_id)
    if row is not None:
        reader.require_target(source=row.source, policy=row.policy)
        return {
            "event_id": event_id,
            "source": row.source,
            "status": row.status,
            "reason": row.reason,
            "detail": row.detail,
            "batch_id": row.batch_id,
        }
    if store.is_acknowledged(source, event_id):
        return {
            "event_id": event_id,
            "status": EventStatus.QUEUED.value,
            "reason": None,
            "batch_id": None,
        }
    raise NotFoundError("an event that was sent", got=event_id)
