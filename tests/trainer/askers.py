"""Feedback on questions about two topics, each in other words, from subjects of its own."""

import itertools
from collections.abc import Sequence

from tacit.contracts import Correction, Outcome, Preference, ScreenedEvent
from tests import builders as build
from trainer.doubts import doubts_of

PASSWORD = [
    f"{start} my {word} password {end}"
    for start, word, end in itertools.product(
        ("how do i reset", "i forgot", "please change"),
        ("login", "account", "mail"),
        ("today", "again"),
    )
]
PARCEL = [
    f"{start} parcel {end}"
    for start, end in itertools.product(
        ("where is the", "when do you ship a", "track one"), ("from monday", "to rome", "number 7")
    )
]
GOOD, BAD = Outcome(metric="resolved", value=True), Outcome(metric="resolved", value=False)
_numbers = itertools.count()


def correction(prompt: str, right: str, *, said: str = "sorry", by: str = "") -> ScreenedEvent:
    number = next(_numbers)
    return build.screened(
        f"e-{number:04d}",
        prompt=prompt,
        completion=said,
        feedback=Correction(completion=right),
        subject_id=by or f"u-{number}",
    )


def preference(prompt: str, chosen: str, rejected: str) -> ScreenedEvent:
    number = next(_numbers)
    return build.screened(
        f"e-{number:04d}",
        prompt=prompt,
        feedback=Preference(chosen=chosen, rejected=rejected),
        subject_id=f"u-{number}",
    )


def outcome(prompt: str, said: str, feedback: Outcome) -> ScreenedEvent:
    number = next(_numbers)
    return build.screened(
        f"e-{number:04d}",
        prompt=prompt,
        completion=said,
        feedback=feedback,
        subject_id=f"u-{number}",
    )


def keys(*events: ScreenedEvent) -> set[str]:
    return {event.event_key for event in events}


def doubted_keys(events: Sequence[ScreenedEvent]) -> frozenset[str]:
    return doubts_of(events).keys
