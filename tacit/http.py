"""What all HTTP APIs share: one form of error answers, and who a request comes from.

An error is always ``{"error": {"type", "expected", "got", "mend"}}``, whether Tacit, FastAPI's
validation or the router raised it.
"""

import logging
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from tacit.errors import (
    InvalidInputError,
    NotAuthenticatedError,
    RateLimitedError,
    TacitError,
    UnavailableError,
)
from tacit.keys import KeyStore, Principal

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 1


class ErrorFields(BaseModel):
    """What went wrong, in the words of the error that was raised."""

    type: str
    """Name of the error; machine-readable."""
    expected: str
    got: str
    mend: str
    """How to put it right; may be empty."""


class ErrorAnswer(BaseModel):
    """The body of every answer that is an error."""

    error: ErrorFields


def install_error_handlers(app: FastAPI) -> None:
    """Make ``app`` answer every error in the one form above."""
    app.add_exception_handler(TacitError, _on_tacit_error)
    app.add_exception_handler(RequestValidationError, _on_request_validation)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_unexpected)


def add_schemas(app: FastAPI, schema: Mapping[str, Any]) -> None:
    """Put a JSON schema and its ``$defs`` among the components of the OpenAPI of ``app``.

    For bodies that a route reads itself and refers to as ``#/components/schemas/<title>``.
    """
    described = app.openapi

    def openapi() -> dict[str, Any]:
        whole = described()
        components = whole.setdefault("components", {}).setdefault("schemas", {})
        components |= schema.get("$defs", {})
        components[schema["title"]] = {k: v for k, v in schema.items() if k != "$defs"}
        return whole

    app.openapi = openapi  # type: ignore[method-assign]


def bearer_principal(keys: KeyStore, request: Request) -> Principal:
    """Who sent ``request``. Raises NotAuthenticatedError without a good ``Bearer`` key.

    Reads the database: call it from a plain ``def`` endpoint or a threadpool.
    """
    return keys.authenticate(bearer_credential(request))


def bearer_credential(request: Request) -> str | None:
    """What stands behind ``Bearer`` in ``request``; None if nothing does."""
    scheme, _, credential = request.headers.get("authorization", "").partition(" ")
    return credential.strip() or None if scheme.lower() == "bearer" else None


def error_fields(error: TacitError) -> dict[str, str]:
    """The fields of ``error`` as they stand under ``"error"`` in an answer."""
    return {
        "type": type(error).__name__,
        "expected": error.expected,
        "got": error.got,
        "mend": error.mend,
    }


def error_response(error: TacitError) -> JSONResponse:
    """The answer to a request that ended in ``error``."""
    headers = {}
    if isinstance(error, UnavailableError):
        headers["Retry-After"] = str(RETRY_AFTER_S)
    if isinstance(error, RateLimitedError):
        # Whole seconds, and never 0: that would ask for the same refusal again.
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if isinstance(error, NotAuthenticatedError):
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"error": error_fields(error)}, error.status, headers)


def answer_error(request: Request, error: Exception) -> JSONResponse:
    """The answer to ``request``, which ended in ``error``, whatever that is; logs what it must."""
    return (_on_tacit_error if isinstance(error, TacitError) else _on_unexpected)(request, error)


def _on_tacit_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, TacitError)
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.warning("%s %s: %s", request.method, request.url.path, error)
    return error_response(error)


def _on_request_validation(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return error_response(InvalidInputError.of_fields(error.errors(), what="a valid request"))


def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == HTTPStatus.BAD_REQUEST:
        # So the framework answers a body that is not even JSON; one that is gets 422 here too.
        return error_response(InvalidInputError("a body that is JSON", got=str(error.detail)))
    fields = {
        "type": HTTPStatus(error.status_code).phrase.replace(" ", ""),
        "expected": "a path and method of this API",
        "got": f"{request.method} {request.url.path}: {error.detail}",
        "mend": "GET /docs lists them.",
    }
    return JSONResponse({"error": fields}, error.status_code, error.headers)


def _on_unexpected(request: Request, error: Exception) -> JSONResponse:
    # The traceback is for the log alone: it may hold what a product must not see.
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    fields = {
        "type": "InternalError",
        "expected": "no error here",
        "got": type(error).__name__,
        "mend": "The service's log has the traceback.",
    }
    return JSONResponse({"error": fields}, HTTPStatus.INTERNAL_SERVER_ERROR)
