"""CloudEvents 1.0 (cloudevents.io) as feedback: the envelope gives what the event would say itself.

    id → event_id    source → source    subject → subject_id    time → occurred_at

``type`` is ``tacit.feedback.v1`` and ``data`` the rest of a FeedbackEvent: ``policy``, ``feedback``
and what the feedback is about. Structured and binary mode; attributes are checked by the
``cloudevents`` package.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import pydantic_core
from cloudevents.core.exceptions import CloudEventValidationError
from cloudevents.core.v1.event import CloudEvent
from pydantic import AwareDatetime, TypeAdapter, ValidationError

from collector.parse import parse_event
from tacit.contracts import FeedbackEvent
from tacit.errors import InvalidInputError

EVENT_TYPE = "tacit.feedback.v1"
_PREFIX = "ce-"
_FIELD_OF_ATTRIBUTE = {
    "id": "event_id",
    "source": "source",
    "subject": "subject_id",
    "time": "occurred_at",
}
_MOMENT: TypeAdapter[Any] = TypeAdapter(AwareDatetime)


def parse_structured(item: bytes) -> FeedbackEvent:
    """The event in a CloudEvent in JSON form. Raises InvalidInputError."""
    envelope = _json(item)
    if not isinstance(envelope, dict):
        raise InvalidInputError("a CloudEvent as a JSON object", got=type(envelope).__name__)
    data = envelope.pop("data", None)
    return _event(envelope, data)


def parse_binary(attributes: Mapping[str, str], body: bytes) -> FeedbackEvent:
    """The event whose CloudEvent attributes came as headers. Raises InvalidInputError."""
    return _event(dict(attributes), _json(body))


def binary_attributes(headers: Mapping[str, str]) -> dict[str, str]:
    """The attributes among HTTP ``headers``: those named ``ce-*``, percent-decoded."""
    return {
        name.lower().removeprefix(_PREFIX): unquote(value)
        for name, value in headers.items()
        if name.lower().startswith(_PREFIX)
    }


def _event(attributes: dict[str, Any], data: Any) -> FeedbackEvent:
    _check(attributes)
    if not isinstance(data, dict):
        raise InvalidInputError("data as a JSON object", got=type(data).__name__)
    fields = dict(data)
    for attribute, field in _FIELD_OF_ATTRIBUTE.items():
        value = attributes.get(attribute)
        if value is None:
            continue
        if fields.setdefault(field, value) != value:
            raise InvalidInputError(
                f"{field} to be said once, by the attribute {attribute}",
                got=f"{value!r} and {fields[field]!r}",
            )
    return parse_event(pydantic_core.to_json(fields))


def _check(attributes: Mapping[str, Any]) -> None:
    if "specversion" not in attributes:
        # The package would take it for 1.0.
        raise InvalidInputError("a CloudEvent 1.0", got="specversion: missing")
    typed = dict(attributes)
    try:
        if "time" in typed:
            typed["time"] = _MOMENT.validate_python(typed["time"])
        CloudEvent(typed)
    except CloudEventValidationError as error:
        found = "; ".join(f"{name}: {rows[0]}" for name, rows in sorted(error.errors.items()))
        raise InvalidInputError("a CloudEvent 1.0", got=found) from error
    except ValidationError as error:
        raise InvalidInputError.of_fields(error.errors(), what="a CloudEvent 1.0") from error
    if attributes["type"] != EVENT_TYPE:
        raise InvalidInputError(f"a CloudEvent of type {EVENT_TYPE}", got=repr(attributes["type"]))


def _json(raw: bytes) -> Any:
    try:
        return pydantic_core.from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidInputError("JSON", got=str(error)) from error
