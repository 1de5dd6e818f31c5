"""One piece of feedback from the command line."""

from typing import Any
from uuid import uuid4

from pydantic import ValidationError

from tacit.contracts import FeedbackEvent, utc_now
from tacit.errors import InvalidInputError
from tacit.remote import Remote


def send_feedback(
    remote: Remote,
    *,
    interaction: str,
    subject: str,
    correct: str | None,
    outcome: str | None,
    metric: str,
    rate: float | None,
    scale: str,
    critique: str | None,
    source: str,
    policy: str,
) -> str:
    """Send exactly one kind of feedback; returns the event id. Raises InvalidInputError."""
    kinds: list[dict[str, Any]] = []
    if correct is not None:
        kinds.append({"type": "correction", "completion": correct})
    if outcome is not None:
        kinds.append({"type": "outcome", "metric": metric, "value": _outcome(outcome)})
    if rate is not None:
        kinds.append({"type": "rating", "value": rate, "scale": _scale(scale)})
    if critique is not None:
        kinds.append({"type": "critique", "text": critique})
    if len(kinds) != 1:
        raise InvalidInputError(
            "exactly one of --correct, --outcome, --rate, --critique", got=str(len(kinds))
        )
    try:
        event = FeedbackEvent.model_validate(
            {
                "event_id": uuid4().hex,
                "policy": policy,
                "source": source,
                "subject_id": subject,
                "occurred_at": utc_now(),
                "interaction_id": interaction,
                "feedback": kinds[0],
            }
        )
    except ValidationError as error:
        rows = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise InvalidInputError("valid feedback", got=rows) from error
    remote.post("/v1/feedback", event.model_dump(mode="json"))
    return event.event_id


def _outcome(text: str) -> bool | float:
    if text.lower() in {"true", "false"}:
        return text.lower() == "true"
    try:
        return float(text)
    except ValueError as error:
        raise InvalidInputError("--outcome true, false or a number", got=text) from error


def _scale(text: str) -> dict[str, float]:
    low, _, high = text.partition(":")
    try:
        return {"low": float(low), "high": float(high)}
    except ValueError as error:
        raise InvalidInputError("--scale low:high", got=text) from error
