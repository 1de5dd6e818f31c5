"""Routes for the quarantine; all need scope ``review``, as decisions on candidates do.

A key bound to a source sees and decides on that source's events alone.
"""

import json
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from collector.tables import EventRow
from collector.triage.dead_letter_routes import ReasonName
from collector.triage.quarantine import MAX_EVENTS, Cursor, Quarantine, Ruling, Verb
from tacit.contracts.base import Identifier, Name
from tacit.errors import ConflictError
from tacit.http import bearer_principal
from tacit.keys import KeyStore, Principal, Scope

_GIST_LENGTH = 200
EventKey = Annotated[
    str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}/[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")
]
"""``source/event_id``."""


class TriageRequest(BaseModel):
    """Body of release and drop."""

    model_config = ConfigDict(extra="forbid")
    events: Annotated[list[EventKey], Field(min_length=1, max_length=MAX_EVENTS)]
    why: Annotated[
        str, Field(min_length=1, max_length=4_096, pattern=r"^[^\x00]*[^\s\x00][^\x00]*$")
    ]
    """It goes into the ledger."""


def create_quarantine_routes(quarantine: Quarantine, keys: KeyStore, *, policy: Name) -> APIRouter:
    """Routes under ``/v1/quarantine`` for an app with ``tacit.http.install_error_handlers``."""
    router = APIRouter(prefix="/v1/quarantine", tags=["quarantine"])

    def reviewer(request: Request) -> Principal:
        caller = bearer_principal(keys, request)
        caller.require(Scope.REVIEW)
        caller.require_target(policy=policy)
        return caller

    @router.get("")
    def list_events(
        request: Request,
        reason: Annotated[ReasonName | None, Query()] = None,
        source: Name | None = None,
        subject: Identifier | None = None,
        after: Annotated[str | None, Query(max_length=220)] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_EVENTS)] = 100,
    ) -> dict[str, Any]:
        """Quarantined events, newest first; dropped ones only for ``reason=dropped``."""
        caller = reviewer(request)
        caller.require_target(source=source)
        rows = quarantine.page(
            reason=reason,
            source=source or caller.source,
            subject=subject,
            after=None if after is None else Cursor.parse(after),
            limit=limit,
        )
        following = (
            str(Cursor(rows[-1].sequence, rows[-1].event_key)) if len(rows) == limit else None
        )
        return {"events": [_summary(row) for row in rows], "next": following}

    @router.get("/{source}/{event_id}")
    def show_event(source: Name, event_id: Identifier, request: Request) -> dict[str, Any]:
        """One quarantined event, redacted, with the interaction it is about."""
        reviewer(request).require_target(source=source)
        row = quarantine.get(f"{source}/{event_id}")
        said = None if row.interaction is None else json.loads(row.interaction)
        return {**_summary(row), "event": json.loads(row.payload), "interaction": said}

    @router.post("/release")
    def release_events(request: Request, asked: TriageRequest) -> JSONResponse:
        """Let events teach, or be measured where their cluster is held out.

        207 when some are refused, 409 when all are.
        """
        return decide("release", asked, reviewer(request))

    @router.post("/drop")
    def drop_events(request: Request, asked: TriageRequest) -> JSONResponse:
        """Keep events out of training for good. 207 when some are refused, 409 when all are."""
        return decide("drop", asked, reviewer(request))

    def decide(verb: Verb, asked: TriageRequest, caller: Principal) -> JSONResponse:
        rulings = quarantine.decide(verb, asked.events, by=caller, why=asked.why)
        refused = [ruling for ruling in rulings if ruling.refusal is not None]
        if len(refused) == len(rulings):
            raise _all_refused(verb, refused)
        status = HTTPStatus.MULTI_STATUS if refused else HTTPStatus.OK
        return JSONResponse({"results": [ruling._asdict() for ruling in rulings]}, status)

    return router


def _all_refused(verb: Verb, refused: list[Ruling]) -> ConflictError:
    found = "; ".join(f"{ruling.event_key}: {ruling.refusal}" for ruling in refused[:8])
    return ConflictError(f"a quarantined event that one can {verb}", got=found)


def _summary(row: EventRow) -> dict[str, Any]:
    feedback = json.loads(row.payload)["feedback"]
    return {
        "event_key": row.event_key,
        "source": row.source,
        "event_id": row.event_id,
        "subject_id": row.subject_id,
        "kind": row.kind,
        "reason": row.reason,
        "detail": row.detail,
        "cluster": row.cluster,
        "batch_id": row.batch_id,
        "occurred_at": row.occurred_at,
        "received_at": row.received_at,
        "gist": json.dumps(feedback, ensure_ascii=False)[:_GIST_LENGTH],
    }
