"""Events and replay as token sequences with a weight each: what the objective works on.

| feedback                        | becomes                                             |
| ------------------------------- | --------------------------------------------------- |
| correction                      | PAIR: corrected text chosen, what was said rejected |
| correction equal to the answer  | CHOSEN: likelihood only                             |
| preference                      | PAIR                                                |
| outcome, rating above 0 / below | DESIRABLE / UNDESIRABLE with weight |value|         |
| replay                          | REPLAY                                              |
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tacit.contracts import (
    Correction,
    Outcome,
    Preference,
    Rating,
    ReplayExample,
    ScreenedEvent,
)
from tacit.errors import TrainingError
from tacit.policies import completion_ids, prompt_ids


class ExampleKind(StrEnum):
    """Which terms of the objective an example feeds."""

    PAIR = "pair"
    CHOSEN = "chosen"
    DESIRABLE = "desirable"
    UNDESIRABLE = "undesirable"
    REPLAY = "replay"


@dataclass(frozen=True, slots=True)
class Example:
    """One prompt with one completion, or two for a PAIR; token ids, end of sequence included."""

    kind: ExampleKind
    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    """The chosen one of a PAIR."""
    rejected: tuple[int, ...] = ()
    """Empty but for a PAIR."""
    weight: float = 1.0
    """Trust times the size of the signal; multiplies every term of the example's loss."""

    @property
    def num_tokens(self) -> int:
        """Tokens of the longest sequence."""
        return len(self.prompt) + max(len(self.completion), len(self.rejected))


def build_examples(
    tokenizer: Any,
    events: Sequence[ScreenedEvent],
    replay: Sequence[ReplayExample],
    *,
    max_length: int,
) -> list[Example]:
    """Examples in the order of ``events``, then of ``replay``; those without weight are left out.

    Raises TrainingError when no event is usable: replay alone teaches nothing new.
    """
    found = (_event_example(tokenizer, event, max_length) for event in events)
    usable = [example for example in found if example is not None]
    if not usable:
        raise TrainingError(
            "at least one event with a training signal",
            got=f"{len(events)} events, all critiques, neutral outcomes or without trust",
            mend="Wait for corrections, preferences, or outcomes and ratings other than neutral.",
        )
    rehearsed = [
        _example(
            tokenizer, ExampleKind.REPLAY, example.prompt, example.completion, max_length=max_length
        )
        for example in replay
    ]
    return [*usable, *rehearsed]


def _event_example(tokenizer: Any, event: ScreenedEvent, max_length: int) -> Example | None:
    said = event.interaction.completion
    value = 1.0
    rejected: str | None = None
    match event.event.feedback:
        case Correction(completion=completion):
            same = completion.strip() == said.strip()
            kind, rejected = (ExampleKind.CHOSEN, None) if same else (ExampleKind.PAIR, said)
        case Preference(chosen=completion, rejected=rejected):
            kind = ExampleKind.PAIR
        case Outcome() | Rating() as judged:
            value, completion = signal(judged), said
            kind = ExampleKind.DESIRABLE if value > 0 else ExampleKind.UNDESIRABLE
        case _:
            return None
    weight = abs(value) * event.weight
    if weight == 0:
        return None
    return _example(
        tokenizer,
        kind,
        event.interaction.prompt,
        completion,
        rejected=rejected,
        weight=weight,
        max_length=max_length,
    )


def signal(feedback: Outcome | Rating) -> float:
    """The feedback as a number in [-1, 1]; a failed bool is -1."""
    if isinstance(feedback, Rating):
        return feedback.normalized()
    if isinstance(feedback.value, bool):
        return 1.0 if feedback.value else -1.0
    return feedback.value


def _example(
    tokenizer: Any,
    kind: ExampleKind,
    prompt: Any,
    completion: str,
    *,
    max_length: int,
    rejected: str | None = None,
    weight: float = 1.0,
) -> Example:
    # One prompt token must stay: the first completion token is predicted from it.
    room = max_length - 1
    chosen_ids = completion_ids(tokenizer, completion)[:room]
    rejected_ids = [] if rejected is None else completion_ids(tokenizer, rejected)[:room]
    keep = max_length - max(len(chosen_ids), len(rejected_ids))
    return Example(
        kind=kind,
        prompt=tuple(prompt_ids(tokenizer, prompt)[-keep:]),
        completion=tuple(chosen_ids),
        rejected=tuple(rejected_ids),
        weight=weight,
    )
