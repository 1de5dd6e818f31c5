"""Feedback on generated tickets of the demo's helpdesk, as a product would send it."""

from collections.abc import Iterator
from itertools import cycle, islice

from tacit.contracts import (
    Correction,
    Critique,
    Feedback,
    FeedbackEvent,
    InlineInteraction,
    Outcome,
    Rating,
    RatingScale,
    ReplayExample,
    ScreenedEvent,
    utc_now,
)
from tacit.demo.helpdesk import helpdesk_world
from tacit.demo.world import Utterance, prompt

SAID = "no idea"
NUM_SUBJECTS = 400


def corrections(number: int) -> Iterator[FeedbackEvent]:
    """``number`` corrections, each of another ticket as far as there are so many."""
    for index, ticket in enumerate(_tickets(number)):
        yield _event(index, ticket, Correction(completion=ticket.answer))


def mixed(number: int) -> Iterator[ScreenedEvent]:
    """``number`` screened events of all kinds, in turn."""
    for index, ticket in enumerate(_tickets(number)):
        kinds: tuple[Feedback, ...] = (
            Correction(completion=ticket.answer),
            Outcome(metric="resolved", value=False),
            Critique(text=f"It should say {ticket.answer}."),
            Rating(value=1, scale=RatingScale(low=1, high=5)),
        )
        yield _screened(_event(index, ticket, kinds[index % len(kinds)]), cluster=index)


def screened_corrections(number: int) -> list[ScreenedEvent]:
    """``corrections`` as screening hands them on."""
    return [_screened(sent, cluster=index) for index, sent in enumerate(corrections(number))]


def replay(number: int) -> list[ReplayExample]:
    """``number`` examples of what the demo policy knows."""
    known = islice(cycle(helpdesk_world().old_train), number)
    return [
        ReplayExample(prompt=prompt(ticket), completion=ticket.answer, origin="anchor")
        for ticket in known
    ]


def _screened(sent: FeedbackEvent, *, cluster: int) -> ScreenedEvent:
    assert sent.interaction is not None
    return ScreenedEvent(
        event_key=sent.event_key,
        policy=sent.policy,
        event=sent,
        interaction=sent.interaction,
        weight=1.0,
        cluster=f"{cluster:016x}",
    )


def _tickets(number: int) -> Iterator[Utterance]:
    return islice(cycle(helpdesk_world().new_stream), number)


def _event(index: int, ticket: Utterance, feedback: Feedback) -> FeedbackEvent:
    return FeedbackEvent(
        event_id=f"e-{index}",
        policy="default",
        source="bench",
        subject_id=f"u-{index % NUM_SUBJECTS}",
        occurred_at=utc_now(),
        interaction=InlineInteraction(prompt=prompt(ticket), completion=SAID),
        feedback=feedback,
    )
