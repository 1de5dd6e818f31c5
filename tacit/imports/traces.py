"""Human assessments of MLflow traces as feedback events.

| assessment by a person                  | becomes                             |
| --------------------------------------- | ----------------------------------- |
| expectation with a text                 | correction                          |
| feedback true, false, "yes", "no"       | outcome; the metric is its name     |
| feedback with a number                  | rating on the scale given, or else  |
|                                         | an outcome if it is in [-1, 1]      |
| feedback with any other text            | critique                            |
| rationale of any of them                | critique, an event of its own       |

The trace is the interaction: its id, and what went in and came out at its root. Names are those of
MLflow 3.17 (``mlflow.entities.assessment``).
"""

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from tacit.contracts import FeedbackEvent, RatingScale
from tacit.errors import InvalidInputError
from tacit.imports.rows import messages_of, text_of, validated

_YES = {"yes": True, "true": True, "no": False, "false": False}
_NOT_NAME = re.compile(r"[^a-z0-9_-]+")
_QUESTIONS = ("question", "query", "prompt", "input", "inputs", "text", "message", "request")
_ANSWERS = ("answer", "response", "output", "completion", "text", "content", "message", "result")


class Assessment(Protocol):
    """What is read of an ``mlflow.entities.Assessment``."""

    assessment_id: str
    name: str
    source: Any
    """``source_type`` and ``source_id``."""
    rationale: str | None
    create_time_ms: int
    last_update_time_ms: int | None
    valid: bool | None
    feedback: Any
    """``value`` and ``error``; None for an expectation."""
    expectation: Any


class TraceRules(NamedTuple):
    """What a trace does not say."""

    source: str
    policy: str
    metrics: Mapping[str, str] = {}
    """Outcome metric by name of the assessment, where they differ."""
    scale: tuple[float, float] | None = None
    """Lowest and highest value of numbers; without it they must be in [-1, 1]."""


def read_metrics(options: list[str]) -> dict[str, str]:
    """``NAME=METRIC`` options. Raises InvalidInputError."""
    metrics: dict[str, str] = {}
    for option in options:
        name, _, metric = option.rpartition("=")
        if not name or not metric:
            raise InvalidInputError("--metric NAME=METRIC", got=option)
        metrics[name] = metric
    return metrics


def read_scale(option: str | None) -> tuple[float, float] | None:
    """A ``low:high`` option. Raises InvalidInputError."""
    if option is None:
        return None
    low, _, high = option.partition(":")
    try:
        scale = RatingScale(low=float(low), high=float(high))
    except ValueError as error:
        raise InvalidInputError("--scale low:high", got=option) from error
    return scale.low, scale.high


class Said(NamedTuple):
    """One event to be: its id, and what it says, or why it says nothing."""

    event_id: str
    assessment: Assessment
    feedback: dict[str, Any] | InvalidInputError


def is_human(assessment: Assessment) -> bool:
    """Whether a person said it and has not taken it back since."""
    by_person = assessment.source.source_type == "HUMAN"
    said = assessment.feedback or assessment.expectation
    failed = getattr(assessment.feedback, "error", None) is not None
    return by_person and assessment.valid is not False and said is not None and not failed


def said_by(assessment: Assessment, rules: TraceRules) -> list[Said]:
    """The events an assessment makes: its value, and its rationale if there is one.

    One that was edited in place keeps its id in MLflow; its events get ids of their content.
    """
    made: list[Said] = []
    edited = (assessment.last_update_time_ms or 0) > assessment.create_time_ms

    def event_id(name: str, content: Any) -> str:
        if not edited:
            return name
        return f"{name}-{hashlib.sha256(_json(content).encode()).hexdigest()[:16]}"

    said = assessment.expectation or assessment.feedback
    value_id = event_id(assessment.assessment_id, said.value)
    try:
        value = _value(assessment, rules)
    except InvalidInputError as error:
        made.append(Said(value_id, assessment, error))
    else:
        made.append(Said(value_id, assessment, value))
    if assessment.rationale and assessment.rationale.strip():
        critique = {"type": "critique", "text": assessment.rationale}
        rationale_id = event_id(f"{assessment.assessment_id}-rationale", assessment.rationale)
        made.append(Said(rationale_id, assessment, critique))
    return made


def event_of(
    said: Said, rules: TraceRules, *, trace_id: str, inputs: Any, outputs: Any
) -> FeedbackEvent:
    """The event. Raises InvalidInputError."""
    if isinstance(said.feedback, InvalidInputError):
        raise said.feedback
    moment = datetime.fromtimestamp(said.assessment.create_time_ms / 1000, UTC)
    return validated(
        {
            "event_id": said.event_id,
            "policy": rules.policy,
            "source": rules.source,
            "subject_id": _subject(said.assessment.source.source_id),
            "occurred_at": moment.isoformat(),
            "interaction_id": trace_id,
            "interaction": {"prompt": prompt_of(inputs), "completion": completion_of(outputs)},
            "feedback": said.feedback,
            "tags": {"assessment": said.assessment.name[:256]},
        }
    )


def prompt_of(inputs: Any) -> list[dict[str, str]]:
    """Chat messages of what went in: its ``messages``, its one text, or all of it as JSON."""
    messages = inputs.get("messages") if isinstance(inputs, dict) else inputs
    if isinstance(messages, list) and messages and all(isinstance(m, dict) for m in messages):
        return messages_of([_with_text(message) for message in messages])
    return [{"role": "user", "content": _text(inputs, _QUESTIONS)}]


def completion_of(outputs: Any) -> str:
    """The text of what came out: an OpenAI answer, its last message, its one text, or JSON."""
    if isinstance(outputs, dict):
        if isinstance(choices := outputs.get("choices"), list) and choices:
            choice = choices[0] if isinstance(choices[0], dict) else {}
            message = choice.get("message", choice)
            return text_of([_with_text({"role": "assistant", **message})])
        if isinstance(messages := outputs.get("messages"), list) and messages:
            return text_of([_with_text(messages[-1])])
    return _text(outputs, _ANSWERS)


def _value(assessment: Assessment, rules: TraceRules) -> dict[str, Any]:
    if assessment.expectation is not None:
        value = assessment.expectation.value
        if isinstance(value, str):
            return {"type": "correction", "completion": value}
        raise _not_usable("an expectation with a text", value)
    value = assessment.feedback.value
    if isinstance(value, str):
        if value.strip().lower() not in _YES:
            return {"type": "critique", "text": value}
        value = _YES[value.strip().lower()]
    if isinstance(value, bool):
        return {"type": "outcome", "metric": _metric(assessment.name, rules), "value": value}
    if isinstance(value, int | float):
        return _number(float(value), assessment, rules)
    raise _not_usable("feedback with a boolean, a number or a text", value)


def _number(value: float, assessment: Assessment, rules: TraceRules) -> dict[str, Any]:
    if rules.scale is not None:
        low, high = rules.scale
        return {"type": "rating", "value": value, "scale": {"low": low, "high": high}}
    if -1 <= value <= 1:
        return {"type": "outcome", "metric": _metric(assessment.name, rules), "value": value}
    raise InvalidInputError(
        "a number in [-1, 1]", got=str(value), mend="`--scale LOW:HIGH` says what it is out of."
    )


def _metric(name: str, rules: TraceRules) -> str:
    return rules.metrics.get(name) or _NOT_NAME.sub("_", name.lower()).strip("_-")[:63]


def _subject(source_id: str | None) -> str:
    # Often an address; the same person gets the same pseudonym each time.
    return f"mlflow-{hashlib.sha256((source_id or 'unknown').encode()).hexdigest()[:24]}"


def _with_text(message: dict[str, Any]) -> dict[str, Any]:
    """``message`` with a text: a call of a tool has none, so its JSON stands for it."""
    content = message.get("content")
    if content is None:
        rest = {k: v for k, v in message.items() if k not in ("role", "content") and v is not None}
        return {**message, "content": _json(rest) if rest else ""}
    return message


def _text(value: Any, names: tuple[str, ...]) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        texts = [text for text in value.values() if isinstance(text, str)]
        named = [value[name] for name in names if isinstance(value.get(name), str)]
        if named or len(texts) == len(value) == 1:
            return (named or texts)[0]
    return "" if value is None else _json(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _not_usable(expected: str, value: Any) -> InvalidInputError:
    return InvalidInputError(expected, got=f"{type(value).__name__}: {repr(value)[:80]}")
