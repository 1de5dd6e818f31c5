"""What feedback teaches as a whole answer: corrections, and what was preferred."""

from collections.abc import Iterable
from typing import NamedTuple

from tacit.contracts import Correction, Message, Preference, ScreenedEvent


class Lesson(NamedTuple):
    """A prompt and the answer taught for it, as it was written."""

    prompt: tuple[Message, ...]
    answer: str


def lessons_of(events: Iterable[ScreenedEvent]) -> list[Lesson]:
    """Prompt and right answer of every correction and preference."""
    lessons = []
    for event in events:
        feedback, prompt = event.event.feedback, event.interaction.prompt
        if isinstance(feedback, Correction):
            lessons.append(Lesson(prompt, feedback.completion))
        elif isinstance(feedback, Preference):
            lessons.append(Lesson(prompt, feedback.chosen))
    return lessons
