"""Events and replay as token sequences with a weight each: what the objective works on.

| feedback                        | becomes                                             |
| ------------------------------- | --------------------------------------------------- |
| correction                      | PAIR: corrected text chosen, what was said rejected |
| correction equal to the answer  | CHOSEN: likelihood only                             |
| preference                      | PAIR                                                |
| outcome, rating above 0 / below | DESIRABLE / UNDESIRABLE with weight |reward|, and   |
|                                 | how it was sampled, where that is known             |
| critique                        | CRITICISED, with the prompt the teacher reads       |
| replay                          | REPLAY                                              |
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from tacit.contracts import (
    Correction,
    Critique,
    Message,
    Outcome,
    Preference,
    Rating,
    ReplayExample,
    ScreenedEvent,
)
from tacit.errors import TrainingError
from tacit.policies import completion_ids, prompt_ids
from trainer.behaviour import Behaviour, sampled_completion
from trainer.hindsight import with_hindsight
from trainer.rewards import rewards

MIN_WEIGHT = 1e-6
"""An example that weighs less says nothing, and alone in a step it would be divided by nothing."""


class ExampleKind(StrEnum):
    """Which terms of the objective an example feeds."""

    PAIR = "pair"
    CHOSEN = "chosen"
    DESIRABLE = "desirable"
    UNDESIRABLE = "undesirable"
    CRITICISED = "criticised"
    REPLAY = "replay"


JUDGED = (ExampleKind.DESIRABLE, ExampleKind.UNDESIRABLE)
"""Kinds that came with a reward."""


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
    behaviour: Behaviour | None = None
    """How a DESIRABLE or UNDESIRABLE completion was sampled, where that is known."""
    teacher_prompt: tuple[int, ...] = ()
    """The prompt of a CRITICISED completion with the critique in it; else empty."""
    anchored: bool = True
    """Whether a REPLAY is to be answered as the parent does. Not what feedback taught: where the
    parent has not learned it yet, or has lost it, it would be held to its error."""

    @property
    def num_tokens(self) -> int:
        """Tokens of the longest sequence that is trained on."""
        return len(self.prompt) + max(len(self.completion), len(self.rejected))

    @property
    def num_taught_tokens(self) -> int:
        """Tokens of what the teacher of a CRITICISED completion reads; 0 of all else."""
        return len(self.teacher_prompt) and len(self.teacher_prompt) + len(self.completion)


def build_examples(
    tokenizer: Any,
    events: Sequence[ScreenedEvent],
    replay: Sequence[ReplayExample],
    *,
    max_length: int,
    critiques: bool = False,
) -> list[Example]:
    """Examples in the order of ``events``, then of ``replay``; those without weight are left out.

    ``critiques`` says whether to make examples of critiques too: the mixed objective learns from
    them, TRL's trainers would take what was criticised for an example to follow.
    Raises TrainingError when no event is usable: replay alone teaches nothing new.
    """
    builder = _Builder(tokenizer, max_length)
    found = [
        builder.event(event, reward) if critiques or not _is_critique(event) else None
        for event, reward in zip(events, rewards(events), strict=True)
    ]
    usable = [e for e in found if e is not None and e.weight >= MIN_WEIGHT]
    if not usable:
        raise TrainingError(
            "at least one event with a training signal",
            got=f"{len(events)} events, all neutral, without trust, of kinds not learned from, or "
            "pairs that are the same up to trainer.max_length",
            mend="Wait for corrections, preferences, or outcomes and ratings other than neutral.",
        )
    return [*usable, *map(builder.replay, replay)]


def _is_critique(event: ScreenedEvent) -> bool:
    return isinstance(event.event.feedback, Critique)


class _Builder:
    """Makes examples of at most ``max_length`` tokens."""

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length

    def event(self, event: ScreenedEvent, reward: float | None) -> Example | None:
        """None where both texts of a pair are the same tokens."""
        prompt, said = event.interaction.prompt, event.interaction.completion
        match event.event.feedback:
            case Correction(completion=right) if right.strip() == said.strip():
                return self._example(ExampleKind.CHOSEN, prompt, right, weight=event.weight)
            case Correction(completion=right):
                return self._pair(prompt, right, said, weight=event.weight)
            case Preference(chosen=chosen, rejected=rejected):
                return self._pair(prompt, chosen, rejected, weight=event.weight)
            case Critique(text=critique):
                return self._criticised(event, critique)
            case Outcome() | Rating():
                assert reward is not None
                return self._judged(event, reward)

    def replay(self, example: ReplayExample) -> Example:
        made = self._example(
            ExampleKind.REPLAY, example.prompt, example.completion, weight=example.weight
        )
        return replace(made, anchored=not example.is_lesson)

    def _example(
        self, kind: ExampleKind, prompt: Sequence[Message], completion: str, *, weight: float
    ) -> Example:
        ids = self._completion(completion)
        kept = self._prompt(prompt, room=self._max_length - len(ids))
        return Example(kind, kept, ids, weight=weight)

    def _pair(
        self, prompt: Sequence[Message], chosen: str, rejected: str, *, weight: float
    ) -> Example | None:
        better, worse = self._completion(chosen), self._completion(rejected)
        if better == worse:  # they differ beyond max_length, or in what the tokenizer drops
            return None
        kept = self._prompt(prompt, room=self._max_length - max(len(better), len(worse)))
        return Example(ExampleKind.PAIR, kept, better, rejected=worse, weight=weight)

    def _judged(self, event: ScreenedEvent, reward: float) -> Example:
        kind = ExampleKind.DESIRABLE if reward > 0 else ExampleKind.UNDESIRABLE
        interaction, weight = event.interaction, abs(reward) * event.weight
        if (sampled := sampled_completion(self._tokenizer, interaction)) is not None:
            ids, behaviour = sampled
            whole = tuple(prompt_ids(self._tokenizer, interaction.prompt))
            # What was logged is of the whole prompt: it says nothing of one that is cut.
            if len(whole) + len(ids) <= self._max_length:
                return Example(kind, whole, ids, weight=weight, behaviour=behaviour)
        return self._example(kind, interaction.prompt, interaction.completion, weight=weight)

    def _criticised(self, event: ScreenedEvent, critique: str) -> Example:
        prompt, said = event.interaction.prompt, event.interaction.completion
        plain = self._example(ExampleKind.CRITICISED, prompt, said, weight=event.weight)
        room = self._max_length - len(plain.completion)
        return replace(
            plain, teacher_prompt=self._prompt(with_hindsight(prompt, critique), room=room)
        )

    def _completion(self, text: str) -> tuple[int, ...]:
        # One prompt token must stay: the first completion token is predicted from it.
        return tuple(completion_ids(self._tokenizer, text)[: self._max_length - 1])

    def _prompt(self, prompt: Sequence[Message], *, room: int) -> tuple[int, ...]:
        return tuple(prompt_ids(self._tokenizer, prompt)[-room:])
