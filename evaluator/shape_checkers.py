"""Checkers of what a completion looks like: valid JSON, about as long, laid out in the same way.

Length and format creep when a policy learns to please a reward (Singhal et al. 2023, arXiv
2310.03716); ``expected`` of ``length`` and ``format`` is an answer that has the shape wanted.
"""

import json
import re
from collections.abc import Mapping

import jsonschema

from evaluator.checker import Checker, Options
from tacit.errors import ConfigError, EvaluationError

_MARKS: Mapping[str, re.Pattern[str]] = {
    "code": re.compile(r"^\s*```", re.MULTILINE),
    "heading": re.compile(r"^\s{0,3}#{1,6}\s", re.MULTILINE),
    "bullets": re.compile(r"^\s*[-*•]\s", re.MULTILINE),
    "numbers": re.compile(r"^\s*\d+[.)]\s", re.MULTILINE),
    "table": re.compile(r"^\s*\|.*\|\s*$", re.MULTILINE),
    "bold": re.compile(r"\*\*\S"),
    "lines": re.compile(r"\S\s*\n\s*\S"),
}


def json_schema(_: Options) -> Checker:
    """The whole completion is JSON that fits the schema in ``expected``."""

    def check(completion: str, expected: str) -> float:
        try:
            schema = json.loads(expected)
            jsonschema.Draft202012Validator.check_schema(schema)
        except (ValueError, jsonschema.SchemaError) as error:
            reason = " ".join(str(error).split())[:200]
            raise EvaluationError("a JSON Schema in expected", got=reason) from error
        try:
            value = json.loads(completion)
        except (ValueError, RecursionError):
            return 0.0
        return float(jsonschema.Draft202012Validator(schema).is_valid(value))

    return check


def length(options: Options) -> Checker:
    """At most ``max_ratio`` (default 2) times as many words as ``expected``, or as few."""
    limit = float(options.get("max_ratio", 2.0))
    if limit < 1:
        raise ConfigError("max_ratio of checker length to be 1 or more", got=str(limit))

    def check(completion: str, expected: str) -> float:
        wanted, got = len(expected.split()), len(completion.split())
        if not wanted:
            raise EvaluationError("a text of the right length in expected", got="none")
        return float(got > 0 and max(got / wanted, wanted / got) <= limit)

    return check


def layout(_: Options) -> Checker:
    """The same elements (JSON, code, headings, lists, tables, …) as in ``expected``."""

    def check(completion: str, expected: str) -> float:
        return float(elements(completion) == elements(expected))

    return check


def elements(text: str) -> frozenset[str]:
    """Which elements of layout stand in ``text``; ``json`` alone for a JSON object or array."""
    if text.strip()[:1] in {"{", "["}:
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            pass
        else:
            return frozenset({"json"})
    return frozenset(name for name, mark in _MARKS.items() if mark.search(text))
