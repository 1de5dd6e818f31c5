"""Rows of a data set as feedback events.

| row                                      | becomes                                     |
| ---------------------------------------- | ------------------------------------------- |
| a FeedbackEvent                          | itself                                      |
| ``{prompt, chosen, rejected}``           | preference on ``rejected`` as the answer    |
| ``{chosen, rejected}``, conversations    | the same; the prompt is what both begin with |
| ``{prompt, completion, correction}``     | correction                                  |
| ``{prompt, completion, label}``          | outcome                                     |

Prompts and completions are texts or lists of chat messages, as in the data sets of TRL
(https://huggingface.co/docs/trl/dataset_formats). ``--map FIELD=PATH`` says where a field is if it
is elsewhere in the row, and how a row of several answers is taken apart: see ``paths.py``.
"""

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from pydantic import ValidationError

from tacit.contracts import FeedbackEvent
from tacit.errors import InvalidInputError
from tacit.imports.paths import read_paths, split

FIELDS = frozenset(
    {
        "prompt", "chosen", "rejected", "completion", "correction", "label",
        "event_id", "subject_id", "interaction_id", "episode_id", "occurred_at", "policy_version",
    }
)  # fmt: skip
_SHAPES = (
    "prompt with chosen and rejected, with completion and correction, or with completion and label"
)
_EVENT_KEY = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}/[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_OWN_IDS = ("event_id", "interaction_id")
"""What must differ between answers."""
_ROLES = {"developer": "system", "human": "user", "gpt": "assistant", "function": "tool"}


class RowRules(NamedTuple):
    """What a row does not say."""

    source: str
    policy: str
    metric: str
    """Outcome metric that a ``label`` reports."""
    moment: datetime
    """When it occurred."""
    paths: Mapping[str, str] = {}
    """Where a field is, by its name."""


def read_map(options: list[str]) -> dict[str, str]:
    """``FIELD=PATH`` options. Raises InvalidInputError."""
    return read_paths(options, FIELDS)


def answers_of(row: dict[str, Any], rules: RowRules) -> list[tuple[str | None, dict[str, Any]]]:
    """The answers a row tells of, each as a row with its fields in place, and its name.

    The name is None where the row is one answer. Ids that a row gives to all of its answers get
    the name behind them, so that each answer has its own.
    """
    if is_event(row):
        return [(None, row)]
    own_ids = [f for f in _OWN_IDS if "*" not in rules.paths.get(f, f).split(".")]
    rows: list[tuple[str | None, dict[str, Any]]] = []
    for name, found in split(row, rules.paths):
        flat = {**row, **found}
        if name is not None:
            ids = {field: _id(flat.get(field)) for field in own_ids}
            flat |= {field: f"{named}-{name}" for field, named in ids.items() if named is not None}
        rows.append((name, flat))
    return rows


def parse_row(line: bytes) -> dict[str, Any]:
    """The object on a line. Raises InvalidInputError."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError("a JSON object on each line", got=str(error)) from error
    if not isinstance(row, dict):
        raise InvalidInputError("a JSON object on each line", got=type(row).__name__)
    return row


def is_event(row: Mapping[str, Any]) -> bool:
    """Whether a row is a FeedbackEvent, good or not, rather than a row of a data set."""
    return isinstance(row.get("feedback"), dict) and "event_id" in row


def id_of(row: Mapping[str, Any]) -> str | None:
    """The event id that a row names itself."""
    return _id(row.get("event_id"))


def key_of(row: Mapping[str, Any], rules: RowRules, *, row_id: str) -> str | None:
    """Under which key the event of a row is known; None if it has none that could be."""
    source = row.get("source") if is_event(row) else rules.source
    key = f"{source}/{id_of(row) or row_id}"
    return key if _EVENT_KEY.fullmatch(key) else None


def event_of(row: Mapping[str, Any], rules: RowRules, *, row_id: str) -> FeedbackEvent:
    """The event of a row of :func:`answers_of`; ``row_id`` names it and its subject where it names
    none itself.

    Raises InvalidInputError.
    """
    if is_event(row):
        return validated(row)
    about = {name: _id(row.get(name)) for name in ("interaction_id", "episode_id")}
    prompt, completion, feedback = _said(row, rules.metric)
    interaction = {
        "prompt": prompt,
        "completion": completion,
        "policy_version": _id(row.get("policy_version")),
    }
    return validated(
        {
            "event_id": id_of(row) or row_id,
            "policy": rules.policy,
            "source": rules.source,
            # Rows without a subject are of different people, or one cap would take them all.
            "subject_id": _id(row.get("subject_id")) or row_id,
            "occurred_at": row.get("occurred_at") or rules.moment.isoformat(),
            "interaction": interaction,
            "feedback": feedback,
            **about,
        }
    )


def messages_of(value: Any, *, role: str = "user") -> list[dict[str, str]]:
    """A text or a list of chat messages as messages. Raises InvalidInputError."""
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if not isinstance(value, list) or not value:
        raise InvalidInputError("a text or a list of messages", got=type(value).__name__)
    return [_message(message) for message in value]


def text_of(value: Any) -> str:
    """A text, or the content of the last of some messages. Raises InvalidInputError."""
    return value if isinstance(value, str) else messages_of(value)[-1]["content"]


def _id(named: Any) -> str | None:
    """An id as a text; numbers count from 0, and an empty text names nothing."""
    return None if named is None or named == "" else str(named)


def _said(row: Mapping[str, Any], metric: str) -> tuple[list[dict[str, str]], str, dict[str, Any]]:
    has = {name for name in FIELDS if row.get(name) is not None}
    if {"chosen", "rejected"} <= has:
        prompt = messages_of(row["prompt"]) if "prompt" in has else _common_prompt(row)
        chosen, rejected = text_of(row["chosen"]), text_of(row["rejected"])
        return prompt, rejected, {"type": "preference", "chosen": chosen, "rejected": rejected}
    if {"prompt", "completion", "correction"} <= has:
        feedback: dict[str, Any] = {"type": "correction", "completion": text_of(row["correction"])}
    elif {"prompt", "completion", "label"} <= has:
        feedback = {"type": "outcome", "metric": metric, "value": _label(row["label"])}
    else:
        raise InvalidInputError(
            f"a FeedbackEvent, or {_SHAPES}",
            got=f"the fields {', '.join(sorted(row))[:200]}",
            mend="`--map FIELD=PATH` says where a field is.",
        )
    return messages_of(row["prompt"]), text_of(row["completion"]), feedback


def _common_prompt(row: Mapping[str, Any]) -> list[dict[str, str]]:
    """What two conversations begin with, when each carries its prompt."""
    if isinstance(row["chosen"], str) or isinstance(row["rejected"], str):
        raise InvalidInputError("a prompt beside two texts", got="none")
    chosen, rejected = messages_of(row["chosen"]), messages_of(row["rejected"])
    if len(chosen) < 2 or chosen[:-1] != rejected[:-1]:
        raise InvalidInputError(
            "two conversations that differ in the last message alone", got="others"
        )
    return chosen[:-1]


def _message(message: Any) -> dict[str, str]:
    if not isinstance(message, dict):
        raise InvalidInputError("a message {role, content}", got=type(message).__name__)
    role = message.get("role", message.get("from", ""))
    content = message.get("content", message.get("value"))
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(part for part in parts if isinstance(part, str))
    if not isinstance(content, str) or not isinstance(role, str):
        raise InvalidInputError("a message {role, content} of text", got=repr(message)[:200])
    return {"role": _ROLES.get(role, role), "content": content}


def _label(label: Any) -> bool:
    if label in (0, 1):
        return bool(label)
    raise InvalidInputError("a label that is true or false", got=repr(label)[:80])


def validated(fields: Mapping[str, Any]) -> FeedbackEvent:
    """The event these fields make. Raises InvalidInputError."""
    try:
        return FeedbackEvent.model_validate_json(json.dumps(fields), strict=True)
    except ValidationError as error:
        raise InvalidInputError.of_fields(
            error.errors(include_url=False), what="a row that makes a FeedbackEvent"
        ) from error
    except (ValueError, OverflowError) as error:
        raise InvalidInputError("a row that makes a FeedbackEvent", got=str(error)) from error
