"""Settings of a rollout: the stages between an approval and all of the traffic."""

import itertools
from typing import Annotated, Literal

from pydantic import Field, field_validator

from tacit.config.base import Count, Positive, Section, Share


class RolloutSettings(Section):
    """How a release comes to answer all requests; unless a stage is named here, at once."""

    shadow_share: Share = 0.0
    """Share of the requests that the new release answers too, unseen, before any user meets it."""
    canary_shares: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()
    """Shares of the subjects whom the new release answers, one stage each, such as
    ``[0.1, 0.5]``."""
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Risk that a release that does as well as the champion is rolled back, over all stages."""
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Loss of success below which a release goes on to the next stage."""
    min_feedback: Count = 50
    """Feedback on the canary that a stage takes at the least."""
    min_shadow: Count = 100
    """Requests that both releases answered, until the shadow stage is over."""
    max_shadow_error_share: Share = 0.01
    """Share of its shadow answers that may fail; more roll the release back."""
    max_stage_s: Positive = 24 * 3600.0
    """How long a stage waits for evidence that decides."""
    without_feedback: Literal["wait", "promote", "rollback"] = "wait"
    """What a stage does that its time has run out on: ``wait`` on, or decide so."""

    @field_validator("canary_shares")
    @classmethod
    def _rising(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        if any(later <= earlier for earlier, later in itertools.pairwise(shares)):
            raise ValueError(f"expected shares that rise from stage to stage; got {shares}")
        return shares
