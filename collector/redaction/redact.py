"""Redaction: personal data and secrets become typed placeholders before anything is stored.

In: an event or an interaction as sent. Out: the same with ``[EMAIL]``, ``[PHONE]``, ``[CARD]``,
``[IBAN]``, ``[IP]``, ``[SSN]``, ``[WALLET]`` and ``[SECRET]`` in prompts, completions, corrections,
critiques and tags. Doing it twice changes nothing. It knows shapes, not names: what looks like
prose stays.
"""

import re
from functools import lru_cache
from typing import TypeVar

from collector.redaction.personal_data import find_personal_data
from collector.redaction.secrets import find_secrets
from collector.redaction.spans import replace
from tacit.contracts import Correction, Critique, FeedbackEvent, InlineInteraction, Preference
from tacit.contracts.feedback import Feedback

_MAX_TEXT = 65_536
_MAX_TAG = 256
_MAX_CACHED = 4_096
_I = TypeVar("_I", bound=InlineInteraction)

_WORTH_A_LOOK = re.compile(
    r"[@\d]|://|(?i:bearer |BEGIN |key|pass|secret|token)|[A-Za-z0-9_\-+/=.]{20}"
)
"""Nothing is ever found in a text without a match of this, and most texts are such."""


def redact_text(text: str) -> str:
    """``text`` with a placeholder for each thing found; never longer than a Text may be."""
    # System prompts and stock answers come again and again.
    return _redact_cached(text) if len(text) <= _MAX_CACHED else _redact(text)


def _redact(text: str) -> str:
    # Until nothing is found: a placeholder may end a word that hid what stands beside it. Every
    # pass leaves less that is no placeholder, so there is a last one.
    while _WORTH_A_LOOK.search(text):
        redacted = replace(text, [*find_secrets(text), *find_personal_data(text)])[:_MAX_TEXT]
        if redacted == text:
            break
        text = redacted
    return text[:_MAX_TEXT]


_redact_cached = lru_cache(maxsize=4_096)(_redact)


def redact_interaction(interaction: _I) -> _I:
    """``interaction`` redacted. Token ids and logprobs go if the completion changed: the ids
    spell out what was taken from the text.
    """
    contents = [redact_text(message.content) for message in interaction.prompt]
    completion = redact_text(interaction.completion)
    if completion == interaction.completion and contents == [m.content for m in interaction.prompt]:
        return interaction
    prompt = tuple(
        message.model_copy(update={"content": content})
        for message, content in zip(interaction.prompt, contents, strict=True)
    )
    update: dict[str, object] = {"prompt": prompt, "completion": completion}
    if completion != interaction.completion:
        update |= {"completion_ids": None, "logprobs": None}
    return interaction.model_copy(update=update)


def redact_event(event: FeedbackEvent) -> FeedbackEvent:
    """``event`` redacted, its inline interaction too."""
    update: dict[str, object] = {}
    if (feedback := _redact_feedback(event.feedback)) != event.feedback:
        update["feedback"] = feedback
    inline = event.interaction
    if inline is not None and (redacted := redact_interaction(inline)) is not inline:
        update["interaction"] = redacted
    tags = {name: redact_text(value)[:_MAX_TAG] for name, value in event.tags.items()}
    if tags != event.tags:
        update["tags"] = tags
    return event.model_copy(update=update) if update else event


def _redact_feedback(feedback: Feedback) -> Feedback:
    if isinstance(feedback, Correction):
        return feedback.model_copy(update={"completion": redact_text(feedback.completion)})
    if isinstance(feedback, Critique):
        return feedback.model_copy(update={"text": redact_text(feedback.text)})
    if isinstance(feedback, Preference):
        return feedback.model_copy(
            update={
                "chosen": redact_text(feedback.chosen),
                "rejected": redact_text(feedback.rejected),
            }
        )
    return feedback
