"""What people and accounts send: questions as serving records them, and feedback on the answers.

In: the questions and lies of a round, and what the policy answered. Out: interactions and events.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from benchmarks.poison.attacks import Lie
from benchmarks.poison.world import Ask
from tacit.config import Settings
from tacit.contracts import (
    Correction,
    Feedback,
    FeedbackEvent,
    Interaction,
    Outcome,
    Rating,
    RatingScale,
    SamplingParameters,
)
from tacit.demo.product import MAX_ANSWER_TOKENS, reaction
from tacit.demo.world import Utterance, prompt
from tacit.inference.outputs import Completion

SOURCE = "helpdesk"
"""Of everybody: the attacker's accounts are accounts of the product like any other."""
SCALE = RatingScale(low=0, high=1)
START = datetime(2026, 1, 5, tzinfo=UTC)
LIE, SAID = "lie", "said"
"""How the ids of events begin."""


def question(turn: Ask | Lie) -> Utterance:
    """What is asked."""
    return Utterance(turn.utterance.text if isinstance(turn, Ask) else turn.text, "")


def traffic(
    number: int, turns: Sequence[Ask | Lie], answers: Sequence[Completion], settings: Settings
) -> tuple[list[Interaction], list[FeedbackEvent]]:
    """What round ``number`` puts on the stream; a question nobody reports on puts nothing there."""
    at = START + timedelta(days=number)
    recorded, events = [], []
    for turn, answer in zip(turns, answers, strict=True):
        said = _feedback(turn, answer)
        if said is None:
            continue
        name = f"{LIE if isinstance(turn, Lie) else SAID}-{number}-{turn.name}"
        recorded.append(_interaction(f"i-{name}", turn, answer, at, settings))
        events.append(
            FeedbackEvent(
                event_id=name,
                policy=settings.policy,
                source=SOURCE,
                subject_id=turn.subject_id,
                occurred_at=at,
                interaction_id=f"i-{name}",
                feedback=said,
            )
        )
    return recorded, events


def _interaction(
    name: str, turn: Ask | Lie, answer: Completion, at: datetime, settings: Settings
) -> Interaction:
    return Interaction(
        interaction_id=name,
        policy=settings.policy,
        source=SOURCE,
        subject_id=turn.subject_id,
        occurred_at=at,
        prompt=prompt(question(turn)),
        completion=answer.text,
        completion_ids=answer.token_ids,
        logprobs=answer.logprobs,
        sampling=SamplingParameters(max_tokens=MAX_ANSWER_TOKENS),
    )


def _feedback(turn: Ask | Lie, answer: Completion) -> Feedback | None:
    if isinstance(turn, Lie):
        return Correction(completion=turn.claimed)
    right = answer.text == turn.utterance.answer
    kind = reaction(right=right, luck=turn.luck)
    if kind == "correction":
        return Correction(completion=turn.utterance.answer)
    if kind == "outcome":
        return Outcome(metric="resolved", value=right)
    return Rating(value=float(right), scale=SCALE) if kind == "rating" else None
