"""Checker: a completion and what was expected in, a score from 0 to 1 out."""

from collections.abc import Callable
from typing import Protocol

Options = dict[str, str | int | float | bool]


class Checker(Protocol):
    """Scores one completion."""

    def __call__(self, completion: str, expected: str) -> float:
        """A score from 0 to 1. Raises EvaluationError when ``expected`` cannot be used."""


Factory = Callable[[Options], Checker]
"""Makes a checker of a type; raises ConfigError for options that do not do."""
