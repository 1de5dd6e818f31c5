"""FeedbackEvent: what a product tells Tacit about an answer or an episode."""

from math import isfinite
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StrictBool, model_validator

from tacit.contracts.base import Contract, Identifier, Name, Part, Text, UtcDatetime
from tacit.contracts.interaction import InlineInteraction

Tags = Annotated[
    dict[Name, Annotated[str, Field(max_length=256)]],
    Field(max_length=32),
    # Their order carries nothing, so that it does not make another event either.
    AfterValidator(lambda tags: dict(sorted(tags.items()))),
]
"""Up to 32 short labels."""

UnitInterval = Annotated[float, Field(ge=-1, le=1)]


class Correction(Part):
    """The completion that would have been right."""

    type: Literal["correction"] = "correction"
    completion: Text


class Outcome(Part):
    """Whether, or how far, the task succeeded. ``value`` is a bool or a float in [-1, 1]."""

    type: Literal["outcome"] = "outcome"
    metric: Name
    value: StrictBool | UnitInterval


class Preference(Part):
    """Of two completions to the same prompt, the better and the worse."""

    type: Literal["preference"] = "preference"
    chosen: Text
    rejected: Text

    @model_validator(mode="after")
    def _differ(self) -> "Preference":
        if self.chosen == self.rejected:
            raise ValueError("expected chosen and rejected to differ; got the same text twice")
        return self


class RatingScale(Part):
    """The lowest and the highest value a rating can have."""

    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> "RatingScale":
        if not self.low < self.high:
            raise ValueError(f"expected low < high; got low={self.low}, high={self.high}")
        if not isfinite(self.high - self.low):
            raise ValueError(f"expected a finite distance; got {self.low} to {self.high}")
        return self


class Rating(Part):
    """A value on a scale: stars, thumbs (scale 0 to 1), a slider."""

    type: Literal["rating"] = "rating"
    value: float
    scale: RatingScale

    @model_validator(mode="after")
    def _on_scale(self) -> "Rating":
        if not self.scale.low <= self.value <= self.scale.high:
            raise ValueError(
                f"expected a value from {self.scale.low} to {self.scale.high}; got {self.value}"
            )
        return self

    def normalized(self) -> float:
        """The rating mapped linearly from its scale to [-1, 1]."""
        span = self.scale.high - self.scale.low
        # In this order, since twice a large number is infinite.
        return 2 * ((self.value - self.scale.low) / span) - 1


class Critique(Part):
    """What was wrong or right, in words."""

    type: Literal["critique"] = "critique"
    text: Text


Feedback = Annotated[
    Correction | Outcome | Preference | Rating | Critique, Field(discriminator="type")
]


class FeedbackEvent(Contract):
    """One piece of feedback. ``event_id`` is the caller's and makes sending idempotent."""

    event_id: Identifier
    policy: Name
    """Which policy line the feedback is for."""
    source: Name
    """The product that sends; bound to its API key."""
    subject_id: Identifier
    """Pseudonymous end user; caps and erasure work by subject."""
    occurred_at: UtcDatetime
    feedback: Feedback
    interaction_id: Identifier | None = None
    episode_id: Identifier | None = None
    interaction: InlineInteraction | None = None
    tags: Tags = Field(default_factory=dict)

    @model_validator(mode="after")
    def _about_something(self) -> "FeedbackEvent":
        if self.interaction_id is None and self.episode_id is None and self.interaction is None:
            raise ValueError(
                "expected interaction_id, episode_id or an inline interaction; got none of them"
            )
        return self

    @property
    def event_key(self) -> str:
        """``source/event_id``: unique over all sources, since each picks its own ids."""
        return f"{self.source}/{self.event_id}"
