"""What the SDK makes of the service's answers, without doing any input or output.

In: HTTP responses. Out: what a sender does next, what became of an event, a token, an error.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal, NamedTuple, TypeVar

import httpx
from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from collector.sdk.letters import Letter
from tacit.contracts import utc_now
from tacit.errors import (
    ConflictError,
    InvalidInputError,
    NotAllowedError,
    NotAuthenticatedError,
    NotFoundError,
    TacitError,
    TooLargeError,
    UnavailableError,
)

LONGEST_RETRY_AFTER_S = 60.0
_TAKEN = frozenset({"queued", "duplicate"})
_TRY_AGAIN = frozenset({408, 425, 429})
_OPERATOR_ERRORS = frozenset({401, 403, 404, 405, 407})
"""The key or the address is wrong, which says nothing about the events."""
_TOO_LARGE = 413
_NOT_UNDERSTOOD = frozenset({400, 415, 422})
_ERRORS: Mapping[int, type[TacitError]] = {
    401: NotAuthenticatedError,
    403: NotAllowedError,
    404: NotFoundError,
    409: ConflictError,
    413: TooLargeError,
}
M = TypeVar("M", bound=BaseModel)


class Rejection(NamedTuple):
    """An event the service will never take, and why."""

    event_id: str
    status: str
    """``rejected``, ``conflict``, or the HTTP status of the whole request."""
    error: dict[str, Any]
    """``type``, ``expected``, ``got``, ``mend``."""


class FeedbackStatus(BaseModel):
    """What became of an event. A newer service may tell more, as further attributes."""

    model_config = ConfigDict(frozen=True, extra="allow")

    event_id: str
    status: str
    """``queued``, ``held``, ``accepted``, ``holdout``, ``quarantined``, ``dead_letter``, …"""
    reason: str | None = None
    batch_id: str | None = None
    """The batch it was or will be trained in."""


class FeedbackToken(BaseModel):
    """What a browser needs to send feedback on one interaction without a key."""

    model_config = ConfigDict(frozen=True, extra="allow")

    token: str
    expires_at: AwareDatetime


class Verdict(NamedTuple):
    """What to do with a batch after an answer."""

    action: Literal["settle", "halve", "send_plain", "retry", "hold"]
    """``hold``: only a person can mend it, so retry, and keep saying so."""
    rejected: Sequence[tuple[Letter, Rejection]] = ()
    """With ``settle``: the events the service will never take."""
    error: str = ""
    wait_s: float = 0.0
    """With ``retry`` and ``hold``: what the service asks for, beside the sender's own backoff."""


def judge(
    batch: Sequence[Letter], response: httpx.Response, *, compressed: bool, persistent: bool
) -> Verdict:
    """What ``response`` says about ``batch``.

    A wrong key or address ends what stands in memory, as waiting would only fill it up, but
    never what stands on disk (``persistent``).
    """
    status = response.status_code
    error = f"HTTP {status}: {response.text[:200]}"
    if response.is_success:
        rejected = _rejected_items(batch, response)
        return Verdict("retry", error=error) if rejected is None else Verdict("settle", rejected)
    if not response.is_client_error or status in _TRY_AGAIN:
        return Verdict("retry", error=error, wait_s=retry_after_s(response))
    if status in _OPERATOR_ERRORS and persistent:
        return Verdict("hold", error=error)
    if status in _NOT_UNDERSTOOD and compressed:
        return Verdict("send_plain", error=error)
    if len(batch) > 1 and (status == _TOO_LARGE or status in _NOT_UNDERSTOOD):
        return Verdict("halve", error=error)
    fields = _error_fields(response)
    return Verdict("settle", [(x, Rejection(x.event_id, str(status), fields)) for x in batch])


def _rejected_items(
    batch: Sequence[Letter], response: httpx.Response
) -> list[tuple[Letter, Rejection]] | None:
    """Items of a 2xx answer that were turned away; None if it does not answer this batch."""
    try:
        results = response.json()["results"]
        if len(results) != len(batch):
            return None
        return [
            (letter, Rejection(letter.event_id, result["status"], result.get("error") or {}))
            for letter, result in zip(batch, results, strict=True)
            if result["status"] not in _TAKEN
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def retry_after_s(response: httpx.Response, *, now: datetime | None = None) -> float:
    """Seconds ``Retry-After`` asks for, as a number or a date; 0 without one, at most a minute."""
    asked = response.headers.get("retry-after", "").strip()
    if asked.isascii() and asked.isdecimal():
        return min(float(asked[:9]), LONGEST_RETRY_AFTER_S)
    try:
        moment = parsedate_to_datetime(asked)
    except (ValueError, OverflowError):
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    left_s = (moment - (now or utc_now())).total_seconds()
    return min(max(left_s, 0.0), LONGEST_RETRY_AFTER_S)


def read(kind: type[M], response: httpx.Response) -> M:
    """The body of a good answer as ``kind``. Raises the TacitError the service answered with."""
    if not response.is_success:
        raise _error_of(response)
    try:
        return kind.model_validate_json(response.content)
    except ValidationError as error:
        raise UnavailableError(
            f"a {kind.__name__} from Tacit",
            got=response.text[:200],
            mend="Check that the URL is that of a Tacit service, and not of a proxy.",
        ) from error


def _error_of(response: httpx.Response) -> TacitError:
    fields = {"expected": "a good answer", **_error_fields(response)}
    default = InvalidInputError if response.is_client_error else UnavailableError
    kind = UnavailableError if response.status_code in _TRY_AGAIN else default
    return _ERRORS.get(response.status_code, kind)(
        str(fields["expected"]), got=str(fields.get("got", "")), mend=str(fields.get("mend", ""))
    )


def _error_fields(response: httpx.Response) -> dict[str, Any]:
    try:
        error = response.json()["error"]
    except (ValueError, KeyError, TypeError):
        error = None
    return error if isinstance(error, dict) else {"got": response.text[:200]}
