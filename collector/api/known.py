"""One route for whoever sends many events again: which of them does the service have already?

An import that was cut off asks it, so that it can go on, and say what was there before.
"""

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from collector.receipts.base import ReceiptBook
from collector.triage.quarantine_routes import EventKey
from tacit.http import bearer_principal
from tacit.keys import KeyStore, Scope

MAX_KEYS = 1_000


class KnownRequest(BaseModel):
    """Body of ``POST /v1/feedback/known``."""

    model_config = ConfigDict(extra="forbid")
    events: Annotated[list[EventKey], Field(max_length=MAX_KEYS)]


class KnownAnswer(BaseModel):
    """Those of the events asked about that were acknowledged or screened."""

    known: list[str]


def create_known_route(receipts: ReceiptBook, keys: KeyStore) -> APIRouter:
    """``POST /v1/feedback/known``, scope ``send`` or ``read``, for events of the key's source."""
    router = APIRouter(tags=["feedback"])

    @router.post("/v1/feedback/known")
    def known_events(request: Request, asked: KnownRequest) -> KnownAnswer:
        """Which of up to 1,000 events are durable already; each is ``source/event_id``.

        A key that is bound to a source is told about that source's events alone.
        """
        reader = bearer_principal(keys, request)
        if Scope.READ not in reader.scopes:
            reader.require(Scope.SEND)
        # Of other sources' events the key learns nothing; sending them is refused one by one.
        own = [key for key in asked.events if reader.source in (None, key.partition("/")[0])]
        known = receipts.lookup(own)
        return KnownAnswer(known=[key for key in own if key in known])

    return router
