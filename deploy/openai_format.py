"""Names of versions, and errors in OpenAI's form, as its official clients read them."""

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from deploy.engines.base import ContextLengthError, QueueFullError
from tacit.contracts import Digest, short
from tacit.errors import (
    InvalidInputError,
    NotAllowedError,
    NotAuthenticatedError,
    NotFoundError,
    TacitError,
    TooLargeError,
    UnavailableError,
)

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 1

# The first class an error is an instance of gives its type and code.
_KINDS: tuple[tuple[type[TacitError], str, str], ...] = (
    (NotAuthenticatedError, "authentication_error", "invalid_api_key"),
    (NotAllowedError, "permission_error", "not_allowed"),
    (NotFoundError, "invalid_request_error", "model_not_found"),
    (ContextLengthError, "invalid_request_error", "context_length_exceeded"),
    (TooLargeError, "invalid_request_error", "request_too_large"),
    (InvalidInputError, "invalid_request_error", "invalid_value"),
    (QueueFullError, "rate_limit_error", "queue_full"),
    (UnavailableError, "server_error", "unavailable"),
    (TacitError, "server_error", "internal_error"),
)


def policy_version(policy: str, weights: Digest) -> str:
    """``policy@digest12``: what ``model`` of an answer says."""
    return f"{policy}@{short(weights)}"


def answer_head(answer_id: str, *, weights: Digest, policy: str, created: int) -> dict[str, object]:
    """What an answer and each event of a streamed one have in common; ``created`` in seconds."""
    return {
        "id": answer_id,
        "created": created,
        "model": policy_version(policy, weights),
        "system_fingerprint": f"fp_{short(weights)}",
    }


def model_entry(model_id: str, *, created: int) -> dict[str, Any]:
    """One row of ``GET /v1/models``."""
    return {"id": model_id, "object": "model", "created": created, "owned_by": "tacit"}


def error_body(
    message: str, *, kind: str, code: str | None, param: str | None = None
) -> dict[str, Any]:
    """An error as it stands in an answer or in an event of a stream."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def tacit_error_body(error: TacitError) -> dict[str, Any]:
    """``error`` in OpenAI's form."""
    kind, code = next((kind, code) for cls, kind, code in _KINDS if isinstance(error, cls))
    param = {"model_not_found": "model", "context_length_exceeded": "messages"}.get(code)
    return error_body(str(error), kind=kind, code=code, param=param)


def install_openai_errors(app: FastAPI) -> None:
    """Make ``app`` answer every error in OpenAI's form."""
    app.add_exception_handler(TacitError, _on_tacit_error)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_unexpected)


def _on_tacit_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, TacitError)
    headers = {}
    if isinstance(error, UnavailableError):
        headers["Retry-After"] = str(RETRY_AFTER_S)
    if isinstance(error, NotAuthenticatedError):
        headers["WWW-Authenticate"] = "Bearer"
    if error.status >= 500:
        logger.warning("%s %s: %s", request.method, request.url.path, error)
    return JSONResponse(tacit_error_body(error), error.status, headers)


def _on_validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return _on_tacit_error(
        request, InvalidInputError.of_fields(error.errors(), what="a valid request")
    )


def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    message = f"expected a path and method of this API; got {request.method} {request.url.path}"
    body = error_body(message, kind="invalid_request_error", code="not_found")
    return JSONResponse(body, error.status_code, error.headers)


def _on_unexpected(request: Request, error: Exception) -> JSONResponse:
    # The traceback is for the log alone: it may hold what a caller must not see.
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    body = error_body(
        f"{type(error).__name__}; the server's log has more.",
        kind="server_error",
        code="internal_error",
    )
    return JSONResponse(body, 500)
