"""Routes for dead letters; all need scope ``admin``, since payloads are not redacted.

A key bound to a source or to another policy line sees none of them: nobody can say whose a record
is that does not parse.
"""

import base64
import binascii
import logging
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator

from collector.triage.dead_letters import Place, letter_id, place_of
from collector.triage.replay import MAX_LETTERS, DeadLetters, Letter
from tacit.contracts import utc_now
from tacit.contracts.base import Name, UtcDatetime
from tacit.errors import InvalidInputError, NotAllowedError
from tacit.http import bearer_principal
from tacit.keys import KeyStore, Principal, Scope

logger = logging.getLogger(__name__)

PREVIEW_BYTES = 1_024
ReasonName = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,64}$")]
LetterId = Annotated[str, Field(min_length=5, max_length=200)]


class LetterSelection(BaseModel):
    """Which letters: those named, those of a reason, or all."""

    model_config = ConfigDict(extra="forbid")
    ids: Annotated[list[LetterId], Field(min_length=1, max_length=MAX_LETTERS)] | None = None
    reason: ReasonName | None = None
    all: bool = False
    until: UtcDatetime | None = None
    """Of a reason or all: only those buried until then; by default, until now."""

    @model_validator(mode="after")
    def _one_way(self) -> "LetterSelection":
        if [self.ids is not None, self.reason is not None, self.all].count(True) != 1:
            raise ValueError("expected exactly one of ids, reason and all")
        return self


class ReplayRequest(LetterSelection):
    """Body of ``POST /v1/dead-letters/replay``."""

    payload: str | None = None
    """Another payload for the one letter named."""
    payload_base64: str | None = None
    """The same, for a payload that is not UTF-8."""


class _Chosen(NamedTuple):
    places: list[Place]
    until: UtcDatetime
    more: bool


def create_dead_letter_routes(letters: DeadLetters, keys: KeyStore, *, policy: Name) -> APIRouter:
    """Routes under ``/v1/dead-letters`` for an app with ``tacit.http.install_error_handlers``."""
    router = APIRouter(prefix="/v1/dead-letters", tags=["dead letters"])

    def admin(request: Request) -> Principal:
        caller = bearer_principal(keys, request)
        caller.require(Scope.ADMIN)
        caller.require_target(policy=policy)
        if caller.source is not None:
            raise NotAllowedError("a key that is bound to no source", got=caller.source)
        return caller

    @router.get("")
    def list_letters(
        request: Request,
        reason: Annotated[ReasonName | None, Query()] = None,
        replayed: bool = False,
        after: Annotated[LetterId | None, Query()] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_LETTERS)] = 100,
    ) -> dict[str, Any]:
        """Letters with the beginning of their payloads; ``next`` is the ``after`` of more."""
        admin(request)
        last = None if after is None else place_of(after)
        found = letters.page(
            reason=reason,
            replayed=replayed,
            after=last,
            limit=limit,
            num_payload_bytes=PREVIEW_BYTES,
        )
        following = letter_id(found[-1].place) if len(found) == limit else None
        return {"letters": [_fields(letter) for letter in found], "next": following}

    @router.get("/{letter}")
    def show_letter(letter: LetterId, request: Request) -> dict[str, Any]:
        """One letter with its whole payload, as text if it is UTF-8 and else as base64."""
        admin(request)
        return _fields(letters.get(place_of(letter)))

    @router.post("/replay")
    def replay_letters(request: Request, asked: ReplayRequest) -> dict[str, Any]:
        """Put letters back into the stream; up to 1,000, ``more`` says whether any are left."""
        caller = admin(request)
        mended = _mended(asked)
        chosen = _choose(letters, asked, unreplayed=True)
        if mended is None:
            done = letters.replay(chosen.places)
        else:
            done = [letters.replay_mended(chosen.places[0], mended)]
        results = [{"id": letter_id(place), "status": status} for place, status in done]
        num_replayed = sum(status == "replayed" for _, status in done)
        logger.info("%s replayed %s dead letters", caller.name, num_replayed)
        return {
            "num_replayed": num_replayed,
            "results": results,
            "until": chosen.until,
            "more": chosen.more,
        }

    @router.post("/drop")
    def drop_letters(request: Request, asked: LetterSelection) -> dict[str, Any]:
        """Delete letters; up to 1,000, ``more`` says whether any are left."""
        caller = admin(request)
        chosen = _choose(letters, asked, unreplayed=False)
        num_dropped = letters.drop(chosen.places)
        logger.warning("%s dropped %s dead letters", caller.name, num_dropped)
        return {"num_dropped": num_dropped, "until": chosen.until, "more": chosen.more}

    return router


def _choose(letters: DeadLetters, asked: LetterSelection, *, unreplayed: bool) -> _Chosen:
    # What fails again is buried later than this, so that replaying all comes to an end.
    until = asked.until or utc_now()
    if asked.ids is not None:
        return _Chosen([place_of(letter) for letter in asked.ids], until, more=False)
    found = letters.find(reason=asked.reason, until=until, unreplayed=unreplayed)
    return _Chosen(found, until, more=len(found) == MAX_LETTERS)


def _mended(asked: ReplayRequest) -> bytes | None:
    if asked.payload is None and asked.payload_base64 is None:
        return None
    if len(asked.ids or ()) != 1 or None not in (asked.payload, asked.payload_base64):
        raise InvalidInputError(
            "one payload, for one letter named in ids", got=f"{len(asked.ids or ())} ids"
        )
    if asked.payload is not None:
        return asked.payload.encode()
    try:
        return base64.b64decode(asked.payload_base64 or "", validate=True)
    except binascii.Error as error:
        raise InvalidInputError("payload_base64 in base64", got=str(error)) from error


def _fields(letter: Letter) -> dict[str, Any]:
    return {
        "id": letter_id(letter.place),
        **letter.place._asdict(),
        "reason": letter.reason,
        "detail": letter.detail,
        "occurred_at": letter.occurred_at,
        "replayed_at": letter.replayed_at,
        "num_bytes": letter.num_bytes,
        "whole": len(letter.payload) == letter.num_bytes,
        **_readable(letter.payload, whole=len(letter.payload) == letter.num_bytes),
    }


def _readable(payload: bytes, *, whole: bool) -> dict[str, str | None]:
    try:
        return {"payload": payload.decode(), "payload_base64": None}
    except UnicodeDecodeError as error:
        # A preview may end within a character.
        if not whole and error.start >= len(payload) - 3 and error.reason == _CUT:
            return {"payload": payload[: error.start].decode(), "payload_base64": None}
    return {"payload": None, "payload_base64": base64.b64encode(payload).decode()}


_CUT = "unexpected end of data"
