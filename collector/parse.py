"""Bytes to contracts, strictly, and the same for the API and for what products produce directly."""

import hashlib
from collections.abc import Callable
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from tacit.config import Settings
from tacit.contracts import FeedbackEvent, Interaction, Outcome
from tacit.errors import InvalidInputError

M = TypeVar("M", bound=BaseModel)


def parse_event(data: bytes) -> FeedbackEvent:
    """A feedback event from JSON. Raises InvalidInputError naming each wrong field."""
    return _parse(FeedbackEvent, data)


def parse_interaction(data: bytes) -> Interaction:
    """A recorded interaction from JSON. Raises InvalidInputError naming each wrong field."""
    return _parse(Interaction, data)


def body_of(event: FeedbackEvent) -> tuple[bytes, str]:
    """The bytes in which ``event`` goes into the stream, and their ``sha256:`` digest.

    Two events are the same if these are: the order of fields and white space do not count.
    """
    body = event.__pydantic_serializer__.to_json(event)
    return body, "sha256:" + hashlib.sha256(body).hexdigest()


def require_admissible(event: FeedbackEvent, settings: Settings) -> None:
    """Raises InvalidInputError for a policy line or an outcome metric this service has not."""
    if event.policy != settings.policy:
        raise InvalidInputError(
            f"policy {settings.policy!r}, which this service trains", got=repr(event.policy)
        )
    if isinstance(event.feedback, Outcome):
        _require_metric(event.feedback, settings)


def _require_metric(outcome: Outcome, settings: Settings) -> None:
    metrics = settings.collector.metrics
    declared = metrics.get(outcome.metric)
    if declared is None:
        raise InvalidInputError(
            f"one of the declared outcome metrics: {', '.join(sorted(metrics)) or 'none'}",
            got=outcome.metric,
            mend=f'Declare it: `[collector.metrics] {outcome.metric} = "bool"` in tacit.toml.',
        )
    if (declared.type == "bool") != isinstance(outcome.value, bool):
        raise InvalidInputError(
            f"a {declared.type} as the value of metric {outcome.metric}", got=repr(outcome.value)
        )


def _parse(model: type[M], data: bytes) -> M:
    parse: Callable[..., M] = model.model_validate_json
    try:
        return parse(data, strict=True)
    except ValidationError as error:
        raise InvalidInputError.of_fields(
            error.errors(include_url=False), what=f"a {model.__name__} as JSON"
        ) from error
    except OverflowError as error:
        # A moment so early or late that it has no UTC form.
        raise InvalidInputError(f"a {model.__name__} with moments from year 1 to 9999") from error
