"""Ways for probes to ask and to score by each policy; a switch to another may load a model."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from evaluator.questions import Answer, Prompt
from tacit.inference.outputs import ChoiceScores

Ask = Callable[[Sequence[Prompt]], Sequence[Answer]]
"""Asks one policy."""
Score = Callable[[Sequence[Prompt], Sequence[Sequence[str]]], Sequence[ChoiceScores]]
"""Scores the continuations of each prompt by one policy."""


class Policies(NamedTuple):
    """Answers."""

    candidate: Ask
    champion: Ask
    anchor: Ask


class Scorers(NamedTuple):
    """Log-probabilities."""

    candidate: Score
    champion: Score
    anchor: Score
