"""Arrival: a redacted event and what it is about, with everything the rules compare computed once.

In: an event joined to its interaction. Out: keys by which events are the same in some respect: the
interaction they are about, who said what, the answer they teach.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from collector.screening.clusters import answer_of, normalized, prompt_text
from collector.screening.pending import Lesson
from collector.store import TRAINABLE_KINDS
from tacit.contracts import FeedbackEvent, InlineInteraction, Outcome


@dataclass(frozen=True)
class Arrival:
    """A redacted event with what it is about."""

    event: FeedbackEvent
    interaction: InlineInteraction
    interaction_id: str | None
    received_at: datetime
    plain: str
    """The normalised prompt."""
    cluster: str
    """Near-duplicate cluster of the prompt."""
    about: str
    """Key of the interaction: of its source and id, or of its content where it has no id."""
    said: str
    """Key of who said which kind of thing about what."""
    answer: str | None
    """Normalised; None if the event teaches none."""

    @property
    def subject(self) -> str:
        """``source/subject_id``: each source picks its own subject ids."""
        return f"{self.event.source}/{self.event.subject_id}"

    @property
    def trains(self) -> bool:
        """Whether a batch can take it; what none can would fill a cap for ever."""
        return self.event.feedback.type in TRAINABLE_KINDS

    @property
    def answer_key(self) -> str | None:
        """Hash of the answer; None if there is none."""
        return None if self.answer is None else hash_of(self.answer)

    def lesson(self) -> Lesson | None:
        """What the event teaches; None if it teaches no answer."""
        if self.answer is None:
            return None
        return Lesson(
            subject=self.subject,
            kind=self.event.feedback.type,
            plain=self.plain,
            answer=self.answer,
        )


def arrive(
    event: FeedbackEvent,
    interaction: InlineInteraction,
    *,
    interaction_id: str | None,
    received_at: datetime,
    plain: str | None = None,
    cluster: str = "",
) -> Arrival:
    """An Arrival; ``plain`` is the normalised prompt where it is known already."""
    about = _about(event.source, interaction, interaction_id)
    return Arrival(
        event=event,
        interaction=interaction,
        interaction_id=interaction_id,
        received_at=received_at,
        plain=normalized(prompt_text(interaction)) if plain is None else plain,
        cluster=cluster,
        about=about,
        said=_said(event, about),
        answer=answer_of(event),
    )


def hash_of(*parts: str) -> str:
    """32 hex digits of the SHA-256 over ``parts``."""
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()[:32]


def _about(source: str, interaction: InlineInteraction, interaction_id: str | None) -> str:
    # Ids are each source's own: what another calls the same is another interaction.
    if interaction_id is not None:
        return hash_of("id", source, interaction_id)
    messages: Sequence[str] = [part for m in interaction.prompt for part in (m.role, m.content)]
    return hash_of("content", *messages, interaction.completion)


def _said(event: FeedbackEvent, about: str) -> str:
    feedback = event.feedback
    metric = feedback.metric if isinstance(feedback, Outcome) else ""
    return hash_of(event.source, event.subject_id, feedback.type, metric, about)
