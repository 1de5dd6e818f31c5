"""One root for every error Tacit raises on purpose.

Each message says what was expected, what was got, and how to mend it. Every class also has a
stdlib base, so that callers who do not know Tacit can still catch what they expect to.
"""

from collections.abc import Iterable, Mapping
from typing import Any

_MAX_FIELDS = 8
_MAX_INPUT = 80


class TacitError(Exception):
    """Root of all errors raised on purpose.

    ``expected``, ``got`` and ``mend`` are kept apart so that an API can return them as fields.
    """

    status: int = 500

    def __init__(self, expected: str, *, got: str = "", mend: str = "") -> None:
        super().__init__(expected, got, mend)
        self.expected = expected
        self.got = got
        self.mend = mend

    def __str__(self) -> str:
        text = f"expected {self.expected}"
        if self.got:
            text += f"; got {self.got}"
        if self.mend:
            text += f". {self.mend}"
        return text

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default pickling, and Ray pickles errors.
        return (_rebuild, (type(self), self.expected, self.got, self.mend))


def _rebuild(cls: type[TacitError], expected: str, got: str, mend: str) -> TacitError:
    return cls(expected, got=got, mend=mend)


def _field(row: Mapping[str, Any]) -> str:
    # The whole event as input of a missing field would repeat everything the caller sent.
    name = ".".join(str(part) for part in row["loc"]) or "the whole"
    if row["type"] == "missing" or isinstance(row.get("input"), dict):
        return f"{name}: {row['msg']}"
    shown = repr(row.get("input"))
    if len(shown) > _MAX_INPUT:
        shown = shown[:_MAX_INPUT] + "…"
    return f"{name}: {row['msg']} (got {shown})"


class ConfigError(TacitError, ValueError):
    """A setting, a gate policy or a suite cannot be used as written."""

    status = 400


class InvalidInputError(TacitError, ValueError):
    """A request or a file does not have the form it must have."""

    status = 422

    @classmethod
    def of_fields(
        cls, rows: Iterable[Mapping[str, Any]], *, what: str, mend: str = ""
    ) -> "InvalidInputError":
        """From the rows of a pydantic ValidationError: names each field and what stood there."""
        found = "; ".join(_field(row) for row in list(rows)[:_MAX_FIELDS])
        return cls(what, got=found, mend=mend)


class TooLargeError(TacitError, ValueError):
    """A request has more events or more bytes than the limits allow."""

    status = 413


class UnsupportedMediaTypeError(TacitError, ValueError):
    """A body in a form or an encoding that is not understood."""

    status = 415


class NotAuthenticatedError(TacitError, PermissionError):
    """No key or token, or one that is unknown, altered, revoked or past its end."""

    status = 401


class NotAllowedError(TacitError, PermissionError):
    """The key is good but lacks the scope, or is bound to something else than was asked for."""

    status = 403


class NotFoundError(TacitError, LookupError):
    """The thing named does not exist."""

    status = 404


class ConflictError(TacitError, ValueError):
    """The thing exists already and is different, or is past the state the call needs."""

    status = 409


class RateLimitedError(TacitError, RuntimeError):
    """The key has sent as much as it may for now; ``retry_after_s`` says when it may again."""

    status = 429

    def __init__(
        self, expected: str, *, got: str = "", mend: str = "", retry_after_s: float = 1.0
    ) -> None:
        super().__init__(expected, got=got, mend=mend)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[object, ...]:
        fields = (self.expected, self.got, self.mend, self.retry_after_s)
        return (_rebuild_rate_limited, fields)


def _rebuild_rate_limited(
    expected: str, got: str, mend: str, retry_after_s: float
) -> RateLimitedError:
    return RateLimitedError(expected, got=got, mend=mend, retry_after_s=retry_after_s)


class UnavailableError(TacitError, RuntimeError):
    """Storage or a service refuses for now; trying again later is right."""

    status = 503


class PlacementError(TacitError, RuntimeError):
    """Ray cannot place what was asked for."""

    status = 503


class TrainingError(TacitError, RuntimeError):
    """An update cannot produce a candidate: NaN loss, an empty batch, lost workers."""


class EvaluationError(TacitError, RuntimeError):
    """A suite or a checker failed; the report says so and the gate fails closed."""


class IntegrityError(TacitError, ValueError):
    """Bytes do not match the digest or the signature that vouches for them."""

    status = 409
