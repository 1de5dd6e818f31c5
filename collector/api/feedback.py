"""The feedback API: sending events, and asking what became of one.

What a request goes through stands in ``collector/api/intake.py``; what it may carry in
``collector/api/bodies.py``.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict

from collector.api.cloud_events import EVENT_TYPE
from collector.api.intake import Intake
from collector.ingest import Ingestor
from collector.store import EventStore
from tacit.contracts import EventStatus, FeedbackEvent
from tacit.contracts.base import Identifier, Name
from tacit.errors import NotFoundError
from tacit.http import ErrorAnswer, ErrorFields, bearer_principal
from tacit.keys import KeyStore
from tacit.principal import Principal, Scope

Lineage = Callable[[str], dict[str, Any]]
"""From a batch id to ``{"candidates": […], "releases": […]}``."""


class _Answer(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class Queued(_Answer):
    """The event is durable."""

    event_id: str
    status: str = "queued"


class ItemResult(_Answer):
    """What became of one event of a batch."""

    index: int
    """Its place in the request, from 0."""
    event_id: str | None
    status: str
    """``queued``, ``rejected`` or ``conflict``."""
    error: ErrorFields | None = None


class BatchAnswer(_Answer):
    """What became of each event, in the order in which they were sent."""

    results: list[ItemResult]


class TrainedCandidate(_Answer):
    """A checkpoint that an event was trained into."""

    candidate_id: str
    weights: str
    state: str
    """State of its cycle."""


class CarryingRelease(_Answer):
    """A release whose weights descend from such a checkpoint."""

    release_id: str
    state: str
    since: datetime | None = None


class FeedbackStatus(_Answer):
    """What became of an event."""

    event_id: str
    source: str
    status: EventStatus
    reason: str | None = None
    """Machine-readable: why it is held, quarantined or a dead letter."""
    detail: str | None = None
    """For a person."""
    batch_id: str | None = None
    candidates: list[TrainedCandidate] = []
    """The candidates it trained."""
    releases: list[CarryingRelease] = []
    """The releases that carry what it taught."""


def create_router(
    *,
    ingestor: Ingestor,
    store: EventStore,
    keys: KeyStore,
    intake: Intake,
    lineage: Lineage = lambda _: {},
) -> APIRouter:
    """Routes of the feedback API; the app needs ``tacit.http.install_error_handlers``."""
    router = APIRouter(tags=["feedback"])
    statuses = _Statuses(store, ingestor, lineage)

    @router.post(
        "/v1/feedback",
        status_code=202,
        response_class=Response,
        responses=_ANSWERS,
        openapi_extra={"requestBody": _REQUEST_BODY},
    )
    async def send_feedback(request: Request) -> Response:
        """Queue one event, or a batch as a JSON array or as NDJSON, or CloudEvents."""
        return await intake.take(request)

    @router.get("/v1/feedback/{event_id}", responses=_STATUS_ERRORS)
    def feedback_status(
        event_id: Identifier,
        request: Request,
        source: Annotated[
            Name | None, Query(description="Whose event; by default the key's.")
        ] = None,
    ) -> FeedbackStatus:
        """What became of an event: where it stands, why, and what it was trained into."""
        reader = bearer_principal(keys, request)
        if Scope.READ not in reader.scopes:
            reader.require(Scope.SEND)
        reader.require_target(source=source)
        return statuses.of(source or reader.source, event_id, reader)

    return router


class _Statuses:
    def __init__(self, store: EventStore, ingestor: Ingestor, lineage: Lineage) -> None:
        self._store = store
        self._ingestor = ingestor
        self._lineage = lineage

    def of(self, source: str | None, event_id: str, reader: Principal) -> FeedbackStatus:
        """Raises NotFoundError for an event that nobody sent, NotAllowedError for another's."""
        row = self._store.find(source, event_id)
        if row is not None:
            reader.require_target(source=row.source, policy=row.policy)
            learned = self._lineage(row.batch_id) if row.batch_id is not None else {}
            return FeedbackStatus(
                event_id=event_id,
                source=row.source,
                status=EventStatus(row.status),
                reason=row.reason,
                detail=row.detail,
                batch_id=row.batch_id,
                **learned,
            )
        if source is not None and self._ingestor.receipts.lookup([f"{source}/{event_id}"]):
            return FeedbackStatus(event_id=event_id, source=source, status=EventStatus.QUEUED)
        raise NotFoundError(
            "an event that was sent",
            got=event_id,
            mend="" if source else "Say whose it is with ?source=NAME.",
        )


def _content(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def _error(description: str) -> dict[str, Any]:
    return {"model": ErrorAnswer, "description": description}


_ANSWERS: dict[int | str, dict[str, Any]] = {
    202: {
        "model": Queued | BatchAnswer,
        "description": "Durable: one event, or every event of a batch.",
    },
    207: {"model": BatchAnswer, "description": "Some events of the batch are not queued."},
    401: _error("No key or token, or one that is out of force."),
    403: _error("The key may not send this."),
    409: _error("Another body was sent under this event_id."),
    413: _error("More bytes or events than the limits allow."),
    415: _error("A Content-Encoding other than gzip."),
    422: _error("Not a feedback event."),
    429: _error("More events than the key may send; Retry-After says when to try again."),
    503: _error("Storage refuses for now; nothing was taken. Retry-After says when to try again."),
}
_STATUS_ERRORS: dict[int | str, dict[str, Any]] = {
    **{status: _ANSWERS[status] for status in (401, 403, 422, 503)},
    404: _error("No such event."),
}
_EVENT_REF = {"$ref": "#/components/schemas/FeedbackEvent"}
_CLOUD_EVENT = {
    "type": "object",
    "description": f"A CloudEvent 1.0 of type {EVENT_TYPE}; data is the rest of a FeedbackEvent.",
    "required": ["specversion", "id", "source", "type", "data"],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "description": "event_id"},
        "source": {"type": "string"},
        "type": {"const": EVENT_TYPE},
        "subject": {"type": "string", "description": "subject_id"},
        "time": {"type": "string", "format": "date-time", "description": "occurred_at"},
        "data": {"type": "object"},
    },
}
_REQUEST_BODY = {
    "required": True,
    "description": "Up to 1,000 events or 5 MiB; Content-Encoding gzip is understood.",
    "content": {
        "application/json": {
            "schema": {"anyOf": [_EVENT_REF, {"type": "array", "items": _EVENT_REF, "minItems": 1}]}
        },
        "application/x-ndjson": {"schema": {"type": "string", "description": "One event a line."}},
        "application/cloudevents+json": {"schema": _CLOUD_EVENT},
        "application/cloudevents-batch+json": {
            "schema": {"type": "array", "items": _CLOUD_EVENT, "minItems": 1}
        },
    },
}
FEEDBACK_SCHEMAS: dict[str, Any] = FeedbackEvent.model_json_schema(
    ref_template="#/components/schemas/{model}"
)
"""For the components of the application's OpenAPI, which the request body refers to."""
