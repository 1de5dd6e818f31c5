"""The route that issues feedback tokens, and which web pages may send feedback at all."""

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, ValidationError
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from collector.api.admission import Admission
from collector.api.bodies import read_body
from collector.api.tokens import FeedbackKind, FeedbackTokens, Grant
from tacit.config import Settings
from tacit.contracts import Part
from tacit.contracts.base import Identifier, Name, UtcDatetime
from tacit.errors import InvalidInputError
from tacit.http import ErrorAnswer
from tacit.principal import Principal

FEEDBACK_PATH = "/v1/feedback"
_MAX_REQUEST_BYTES = 16 * 1024
_PREFLIGHT_TTL_S = 600


class TokenRequest(Part):
    """Whom a token is for, and how long."""

    interaction_id: Identifier
    """The answer it may speak about."""
    subject_id: Identifier
    """The end user it may speak for."""
    expires_in_s: Annotated[float, Field(gt=0)] | None = None
    """By default ``collector.token_ttl_s``, at most ``collector.token_max_ttl_s``."""
    kinds: Annotated[tuple[FeedbackKind, ...], Field(min_length=1)] | None = None
    """The kinds of feedback it may send; by default all."""
    source: Name | None = None
    """By default the key's; needed with a key that is bound to none."""
    policy: Name | None = None
    """By default the key's, or the policy line of the service."""


class TokenAnswer(BaseModel):
    """The token, and what an event sent with it must hold."""

    token: str
    expires_at: UtcDatetime
    source: str
    policy: str
    interaction_id: str
    subject_id: str
    kinds: tuple[FeedbackKind, ...] | None


def create_router(tokens: FeedbackTokens, admission: Admission, settings: Settings) -> APIRouter:
    """The route; the app needs ``tacit.http.install_error_handlers``."""
    router = APIRouter(tags=["feedback"])

    @router.post(
        f"{FEEDBACK_PATH}/tokens",
        status_code=201,
        responses=_ERRORS,
        openapi_extra={"requestBody": _REQUEST_BODY},
    )
    async def issue_token(request: Request) -> TokenAnswer:
        """Make a token with which a web page may send feedback on one answer.

        Takes an API key with scope ``send``.
        """
        sender = await admission.sender(request)
        sender.require_key()
        raw = await read_body(request, limit_bytes=_MAX_REQUEST_BYTES)
        asked = _parse(raw)
        grant = _grant(asked, sender, settings)
        token = tokens.issue(grant, ttl_s=_ttl_s(asked, settings))
        about = grant.model_dump(exclude={"key_id"})
        return TokenAnswer(token=token.text, expires_at=token.expires_at, **about)

    return router


class FeedbackCors:
    """Middleware: answers browsers of ``origins`` on the feedback API, and on no other path."""

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]) -> None:
        self._app = app
        # Without credentials: a browser never adds a cookie, so a page can only send what it has.
        self._cors = CORSMiddleware(
            app,
            allow_origins=origins,
            allow_methods=["POST"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["Retry-After"],
            max_age=_PREFLIGHT_TTL_S,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request as ASGI says."""
        path = scope.get("path", "")
        inside = path == FEEDBACK_PATH or path.startswith(f"{FEEDBACK_PATH}/")
        await (self._cors if inside else self._app)(scope, receive, send)


def _parse(raw: bytes) -> TokenRequest:
    try:
        return TokenRequest.model_validate_json(raw, strict=True)
    except ValidationError as error:
        raise InvalidInputError.of_fields(
            error.errors(include_url=False), what="a TokenRequest as JSON"
        ) from error


def _grant(asked: TokenRequest, sender: Principal, settings: Settings) -> Grant:
    sender.require_target(source=asked.source, policy=asked.policy)
    source = asked.source or sender.source
    if source is None:
        raise InvalidInputError(
            "source, because the key is bound to none", mend="Name the product that asks."
        )
    policy = asked.policy or sender.policy or settings.policy
    if policy != settings.policy:
        raise InvalidInputError(
            f"policy {settings.policy!r}, which this service trains", got=repr(policy)
        )
    return Grant(
        key_id=sender.key_id,
        source=source,
        policy=policy,
        interaction_id=asked.interaction_id,
        subject_id=asked.subject_id,
        kinds=asked.kinds,
    )


def _ttl_s(asked: TokenRequest, settings: Settings) -> float:
    longest_s = settings.collector.token_max_ttl_s
    ttl_s = asked.expires_in_s or settings.collector.token_ttl_s
    if ttl_s > longest_s:
        raise InvalidInputError(
            f"expires_in_s of at most {longest_s:g}",
            got=f"{ttl_s:g}",
            mend="collector.token_max_ttl_s sets the limit.",
        )
    return ttl_s


_REQUEST_BODY = {
    "required": True,
    "content": {"application/json": {"schema": TokenRequest.model_json_schema()}},
}
_ERRORS: dict[int | str, dict[str, object]] = {
    401: {"model": ErrorAnswer, "description": "No key, or one that is out of force."},
    403: {"model": ErrorAnswer, "description": "The key may not issue this token."},
    413: {"model": ErrorAnswer, "description": "The body is too large."},
    422: {"model": ErrorAnswer, "description": "Not a TokenRequest."},
    503: {"model": ErrorAnswer, "description": "The database does not answer."},
}
