"""Feedback on what a policy answered, as the demo's product sends it, or noisier or sparser.

What is sent depends on the seed, the place in the stream, and whether the answer was right.
"""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from benchmarks.learning.variants import Kinds, Variant
from tacit.contracts import (
    Correction,
    Feedback,
    FeedbackEvent,
    InlineInteraction,
    Outcome,
    Rating,
    RatingScale,
    SamplingParameters,
)
from tacit.demo.product import MAX_ANSWER_TOKENS, Reaction, reaction
from tacit.demo.world import Utterance, prompt
from tacit.inference.outputs import Completion

NUM_SUBJECTS = 400
POLICY = "default"
SOURCE = "product"
START = datetime(2026, 1, 1, tzinfo=UTC)
THUMBS = RatingScale(low=0, high=1)


class Users:
    """The product's users: react to answers, one number of the stream after another."""

    def __init__(self, variant: Variant, answers: Sequence[str], *, seed: int) -> None:
        """``answers`` are what a mistaken user may take for right."""
        self._variant = variant
        self._answers = sorted(answers)
        self._seed = seed
        self._number = 0

    def react(
        self, asked: Sequence[Utterance], said: Sequence[Completion], *, version: str
    ) -> list[FeedbackEvent]:
        """Feedback on what a policy ``said``, in the order of ``asked``; some say nothing."""
        events = []
        for utterance, completion in zip(asked, said, strict=True):
            self._number += 1
            rng = random.Random(f"{self._seed}-{self._number}")
            subject = f"u-{rng.randrange(NUM_SUBJECTS):05d}"
            feedback = self._feedback(utterance, completion.text, rng)
            if feedback is not None:
                about = _interaction(utterance, completion, version)
                events.append(self._event(feedback, about, subject))
        return events

    def _feedback(self, asked: Utterance, said: str, rng: random.Random) -> Feedback | None:
        right = said == asked.answer
        kind = _kind(reaction(right=right, luck=rng.random()), self._variant.kinds)
        mistaken = rng.random() < self._variant.noise
        good = right is not mistaken
        if kind == "correction":
            others = [answer for answer in self._answers if answer != asked.answer]
            return Correction(completion=rng.choice(others) if mistaken else asked.answer)
        if kind == "outcome":
            return Outcome(metric="resolved", value=good)
        return None if kind is None else Rating(value=float(good), scale=THUMBS)

    def _event(
        self, feedback: Feedback, interaction: InlineInteraction, subject: str
    ) -> FeedbackEvent:
        return FeedbackEvent(
            event_id=f"e-{self._number}",
            policy=POLICY,
            source=SOURCE,
            subject_id=subject,
            occurred_at=START + timedelta(minutes=self._number),
            interaction=interaction,
            feedback=feedback,
        )


def _kind(said: Reaction | None, kinds: Kinds) -> Reaction | None:
    if said is None or kinds == "mixed":
        return said
    if kinds == "outcomes":
        return "outcome"
    return said if said == "correction" else None


def _interaction(asked: Utterance, said: Completion, version: str) -> InlineInteraction:
    """As serving records it."""
    return InlineInteraction(
        prompt=prompt(asked),
        completion=said.text,
        policy_version=version,
        completion_ids=said.token_ids,
        logprobs=said.logprobs,
        sampling=SamplingParameters(temperature=0.0, max_tokens=MAX_ANSWER_TOKENS),
    )
