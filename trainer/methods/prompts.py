"""Prompts to sample answers to, with what feedback says about each.

Input: screened events. Output: a Prompt for each that carries weight, in their order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from tacit.contracts import Correction, Critique, Message, Outcome, Preference, ScreenedEvent
from tacit.policies import prompt_ids
from trainer.examples import MIN_WEIGHT
from trainer.rewards import rewards


@dataclass(frozen=True)
class Prompt:
    """What was asked, and what is known of good answers to it."""

    event: ScreenedEvent
    reward: float | None
    """Of the answer that was served, in [-1, 1]; None without an outcome or a rating."""

    @property
    def messages(self) -> tuple[Message, ...]:
        """The prompt as chat messages."""
        return self.event.interaction.prompt

    @property
    def known_answer(self) -> str | None:
        """The correction, or what was served where the outcome was good; else None."""
        match self.event.event.feedback:
            case Correction(completion=right):
                return right
            case Outcome() if self.reward is not None and self.reward > 0:
                return self.event.interaction.completion
        return None

    @property
    def demonstration(self) -> str | None:
        """An answer to learn from: the known one, or the chosen one of a preference."""
        feedback = self.event.event.feedback
        return feedback.chosen if isinstance(feedback, Preference) else self.known_answer

    @property
    def critique(self) -> str | None:
        """What was wrong or right with the answer that was served, in words."""
        feedback = self.event.event.feedback
        return feedback.text if isinstance(feedback, Critique) else None


def build_prompts(events: Sequence[ScreenedEvent]) -> list[Prompt]:
    """A prompt for each event that carries weight."""
    return [
        Prompt(event, reward)
        for event, reward in zip(events, rewards(events), strict=True)
        if event.weight >= MIN_WEIGHT
    ]


def tokenized(tokenizer: Any, messages: Sequence[Message], *, room: int) -> list[int]:
    """Token ids of a prompt, those of the beginning left out where there is no ``room``."""
    return prompt_ids(tokenizer, messages)[-room:]


def whole_groups(prompts: Sequence[Prompt], *, num_prompts: int) -> tuple[list[int], int]:
    """Indices of prompts for one epoch, and how many share a step, at most ``num_prompts``.

    TRL leaves out what does not fill a step. So steps are made as equal as can be, and the first
    few prompts stand twice where one would not be full.
    """
    num_steps = -(-len(prompts) // num_prompts)
    per_step = -(-len(prompts) // num_steps)
    return [index % len(prompts) for index in range(num_steps * per_step)], per_step


def prompt_dataset(
    prompts: Sequence[Prompt],
    rows: Sequence[int],
    *,
    context: Callable[[Prompt], str | None] = lambda _: None,
) -> Dataset:
    """A row for each index in ``rows``: its prompt as chat messages, the index, and what
    ``context`` says that only a teacher may read."""
    return Dataset.from_list(
        [
            {
                "prompt": [{"role": m.role, "content": m.content} for m in prompts[row].messages],
                "row": row,
                "privileged_context": context(prompts[row]),
            }
            for row in rows
        ]
    )


def as_messages(prompt: Sequence[dict[str, Any]]) -> list[Message]:
    """A prompt of ``prompt_dataset`` as messages again."""
    return [Message.model_construct(role=m["role"], content=m["content"]) for m in prompt]
