"""Webhooks: feedback that a third party delivers, signed as Standard Webhooks says.

In: ``POST /v1/webhooks/<id>`` with a FeedbackEvent, or a JSON array of them, and the headers
``webhook-id``, ``webhook-timestamp`` and ``webhook-signature``
(https://www.standardwebhooks.com). ``event_id``, ``source`` and ``policy`` may be left out: they
come from ``webhook-id`` and from the key. So a delivery that is repeated is the same event, and
counts once.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pydantic_core
from fastapi import APIRouter, Request
from fastapi.responses import Response
from standardwebhooks import Webhook, WebhookVerificationError
from starlette.concurrency import run_in_threadpool

from collector.api.bodies import Body, read_body
from collector.api.intake import Intake
from collector.parse import parse_event
from tacit.config import Settings
from tacit.errors import InvalidInputError, NotAuthenticatedError
from tacit.http import ErrorAnswer
from tacit.keys import KeyStore, WebhookKey
from tacit.principal import Principal

ID_HEADER = "webhook-id"
HEADERS = (ID_HEADER, "webhook-timestamp", "webhook-signature")


def create_router(intake: Intake, keys: KeyStore, settings: Settings) -> APIRouter:
    """The route; the app needs ``tacit.http.install_error_handlers``."""
    router = APIRouter(tags=["feedback"])

    @router.post(
        "/v1/webhooks/{endpoint}",
        status_code=202,
        response_class=Response,
        responses=_ERRORS,
        openapi_extra={"requestBody": _REQUEST_BODY, "parameters": _PARAMETERS},
    )
    async def take_delivery(endpoint: str, request: Request) -> Response:
        """Queue the events of a signed delivery; answers as `POST /v1/feedback` does."""
        signers = await run_in_threadpool(keys.webhook, endpoint)
        headers = _signed_headers(request)
        limit_bytes = settings.collector.max_request_bytes
        raw = await read_body(request, limit_bytes=limit_bytes)
        sender = await run_in_threadpool(verify, raw, headers, signers)
        body = await run_in_threadpool(
            split_delivery, raw, headers[ID_HEADER], sender, policy=settings.policy
        )
        return await intake.take_from(sender, body)

    return router


def verify(raw: bytes, headers: Mapping[str, str], signers: Sequence[WebhookKey]) -> Principal:
    """Who signed ``raw``: the first of ``signers`` whose signature is among those in ``headers``.

    Raises NotAuthenticatedError on a signature of none of them, or a timestamp more than five
    minutes off.
    """
    refusal = "no signature"
    for signer in signers:
        try:
            Webhook(signer.secret).verify(raw, dict(headers), json_parse=False)
            return signer.principal
        except WebhookVerificationError as error:
            refusal = str(error)
        except ValueError:
            # The library lets these pass: text that is not UTF-8, a signature not in its form.
            refusal = "a delivery whose body or signature cannot be read"
    raise _refused(refusal)


def split_delivery(raw: bytes, delivery_id: str, sender: Principal, *, policy: str) -> Body:
    """The events of a delivery, with the fields filled in that its sender may leave out.

    The events of an array are called ``<delivery_id>-<n>``, from 0. Raises InvalidInputError.
    """
    try:
        parsed = pydantic_core.from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidInputError("a feedback event or an array of them", got=str(error)) from error
    known = {"source": sender.source, "policy": sender.policy or policy}
    if not isinstance(parsed, list):
        filled = _filled(parsed, {**known, "event_id": delivery_id})
        return Body([filled], parse_event, single=True)
    if not parsed:
        raise InvalidInputError("at least one event", got="none")
    items = [
        _filled(item, {**known, "event_id": f"{delivery_id}-{index}"})
        for index, item in enumerate(parsed)
    ]
    return Body(items, parse_event, single=False)


def _filled(item: Any, known: Mapping[str, Any]) -> bytes:
    # What is no object stays as it is; checking the event says what is wrong with it.
    return pydantic_core.to_json({**known, **item} if isinstance(item, dict) else item)


def _signed_headers(request: Request) -> dict[str, str]:
    headers = {name: request.headers.get(name, "") for name in HEADERS}
    missing = [name for name, value in headers.items() if not value]
    if missing:
        raise _refused(f"none of {', '.join(missing)}")
    return headers


def _refused(got: str) -> NotAuthenticatedError:
    return NotAuthenticatedError(
        "a delivery signed with the webhook's secret in the last five minutes",
        got=got,
        mend="`tacit keys rotate NAME` makes a new secret for the same path.",
    )


_PARAMETERS = [
    {"name": name, "in": "header", "required": True, "schema": {"type": "string"}}
    for name in HEADERS
]
_EVENT = {
    "type": "object",
    "description": "A FeedbackEvent; event_id, source and policy may be left out.",
    "required": ["subject_id", "occurred_at", "feedback"],
}
_REQUEST_BODY = {
    "required": True,
    "content": {
        "application/json": {"schema": {"anyOf": [_EVENT, {"type": "array", "items": _EVENT}]}}
    },
}
_ERRORS: dict[int | str, dict[str, Any]] = {
    207: {"description": "Some events of the delivery are not queued; see the results."},
    401: {"model": ErrorAnswer, "description": "Unknown path, bad signature or old timestamp."},
    403: {"model": ErrorAnswer, "description": "The webhook is bound to another source or line."},
    409: {"model": ErrorAnswer, "description": "Another body came under this webhook-id."},
    413: {"model": ErrorAnswer, "description": "More bytes or events than the limits allow."},
    422: {"model": ErrorAnswer, "description": "Not a feedback event."},
    429: {"model": ErrorAnswer, "description": "More events than the webhook may send."},
    503: {"model": ErrorAnswer, "description": "Storage refuses for now; deliver again."},
}
