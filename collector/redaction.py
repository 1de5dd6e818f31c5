"""Redaction: personal data and secrets become typed placeholders before anything is stored.

In: an event or an interaction as sent. Out: the same with ``[EMAIL]``, ``[PHONE]``, ``[CARD]``,
``[IBAN]`` and ``[SECRET]`` in prompts, completions, corrections, critiques and tags. Doing it twice
changes nothing. It knows shapes, not names: what looks like prose stays.
"""

import re
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from tacit.contracts import Correction, Critique, FeedbackEvent, InlineInteraction, Preference
from tacit.contracts.feedback import Feedback

_MAX_TEXT = 65_536
_MAX_TAG = 256
_I = TypeVar("_I", bound=InlineInteraction)


class _Shape(NamedTuple):
    placeholder: str
    pattern: re.Pattern[str]
    confirms: Callable[[str], bool] | None = None


def _luhn(text: str) -> bool:
    """Check digit of ISO/IEC 7812-1, annex B."""
    digits = [int(c) for c in text if c.isdigit()]
    doubled = [
        d if i % 2 == 0 else (d * 2 - 9 if d > 4 else d * 2) for i, d in enumerate(digits[::-1])
    ]
    return 13 <= len(digits) <= 19 and len(set(digits)) > 1 and sum(doubled) % 10 == 0


def _iban(text: str) -> bool:
    """Check digits of ISO 13616: the rearranged number is 1 modulo 97."""
    compact = text.replace(" ", "").upper()
    rearranged = compact[4:] + compact[:4]
    return 15 <= len(compact) <= 34 and int("".join(str(int(c, 36)) for c in rearranged)) % 97 == 1


_SEPARATOR = r"[ .()\-/]{0,3}"
_SHAPES = (
    _Shape(
        "[SECRET]",
        re.compile(
            r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----[\s\S]{0,20000}?-----END [A-Z ]{0,40}"
            r"PRIVATE KEY-----"
            r"|\b(?:sk|pk|rk)[-_](?:[A-Za-z]{2,10}[-_]){0,3}[A-Za-z0-9_-]{16,}"
            r"|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_[A-Za-z0-9_]{20,}"
            r"|\bglpat-[A-Za-z0-9_-]{16,}|\bhf_[A-Za-z0-9]{20,}"
            r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bAIza[0-9A-Za-z_-]{35}"
            r"|\bxox[abeoprs]-[A-Za-z0-9-]{10,}"
            r"|\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{5,}"
            r"|\btacit\.[0-9a-f]{12}\.[A-Za-z0-9_-]{40,}"
        ),
    ),
    _Shape(
        "[SECRET]",
        re.compile(
            r"(?i)(?<=bearer )[A-Za-z0-9._~+/=-]{16,}"
            r"|(?:(?<=password: )|(?<=password=)|(?<=api_key: )|(?<=api_key=)|(?<=apikey=)"
            r"|(?<=secret: )|(?<=secret=)|(?<=token: )|(?<=token=))[^\s\[\],;\"']{6,}"
        ),
    ),
    _Shape("[EMAIL]", re.compile(r"[\w.%+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}")),
    _Shape(
        "[IBAN]",
        re.compile(r"(?i)\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"),
        _iban,
    ),
    _Shape("[CARD]", re.compile(r"(?<![\w.])\d(?:[ -]?\d){12,18}(?![\w])"), _luhn),
    _Shape(
        "[PHONE]",
        re.compile(
            rf"(?<![\w+])(?:\+|00)[1-9]{_SEPARATOR}(?:\d{_SEPARATOR}){{6,13}}\d(?!\w)"
            r"|(?<![\w.-])\(?[2-9]\d{2}\)?[ .-]{1,2}\d{3}[ .-]\d{4}(?![\w-])"
            r"|(?<![\w.-])\(?0[1-9]\d{1,3}\)?[ /-]\d{3,4}[ -]?\d{3,5}(?![\w-])"
        ),
    ),
)


def redact_text(text: str) -> str:
    """``text`` with a placeholder for each thing found; never longer than a Text may be."""
    for placeholder, pattern, confirms in _SHAPES:
        text = pattern.sub(_replacement(placeholder, confirms), text)
    return text[:_MAX_TEXT]


def redact_interaction(interaction: _I) -> _I:
    """``interaction`` redacted. Token ids and logprobs go if the completion changed: the ids
    spell out what was taken from the text.
    """
    prompt = tuple(
        message.model_copy(update={"content": redact_text(message.content)})
        for message in interaction.prompt
    )
    completion = redact_text(interaction.completion)
    update: dict[str, object] = {"prompt": prompt, "completion": completion}
    if completion != interaction.completion:
        update |= {"completion_ids": None, "logprobs": None}
    return interaction.model_copy(update=update)


def redact_event(event: FeedbackEvent) -> FeedbackEvent:
    """``event`` redacted, its inline interaction too."""
    inline = event.interaction
    update: dict[str, object] = {"feedback": _redact_feedback(event.feedback)}
    if inline is not None:
        update["interaction"] = redact_interaction(inline)
    if event.tags:
        update["tags"] = {k: redact_text(v)[:_MAX_TAG] for k, v in event.tags.items()}
    return event.model_copy(update=update)


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


def _replacement(
    placeholder: str, confirms: Callable[[str], bool] | None
) -> Callable[[re.Match[str]], str]:
    def replace(match: re.Match[str]) -> str:
        return placeholder if confirms is None or confirms(match[0]) else match[0]

    return replace
