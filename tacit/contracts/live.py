"""ArmComparison: what live feedback says about a release beside the one it may replace."""

from typing import Annotated, Literal

from pydantic import Field

from tacit.contracts.base import Contract, Part

Arm = Literal["champion", "canary"]
"""Who answered: the release that is trusted, or the one that is tried."""
LiveVerdict = Literal["continue", "promote", "rollback"]
_Share = Annotated[float, Field(ge=0, le=1)]
_Difference = Annotated[float, Field(ge=-1, le=1)]


class ArmResult(Part):
    """Feedback on one arm. Success counts every subject once: the mean of its subjects' means."""

    num_feedback: Annotated[int, Field(ge=0)]
    num_subjects: Annotated[int, Field(ge=0)]
    mean: _Share | None
    """None without feedback."""
    low: _Share
    """Each bound holds at all looks together, with a probability of 1 - alpha."""
    high: _Share


class ArmComparison(Contract):
    """The state of a sequential test of two arms."""

    verdict: LiveVerdict
    champion: ArmResult
    canary: ArmResult
    difference: _Difference | None
    """Mean of the canary less that of the champion; None while one of them has no feedback."""
    difference_low: _Difference
    """Each bound holds at all looks together, with a probability of 1 - alpha."""
    difference_high: _Difference
    e_value: Annotated[float, Field(ge=0)]
    """Evidence that the canary loses more than ``tolerance``; 1/alpha of it is enough."""
    alpha: Annotated[float, Field(gt=0, lt=1)]
    margin: Annotated[float, Field(gt=0, le=1)]
    """A loss that is small enough to promote."""
    tolerance: Annotated[float, Field(ge=0, lt=1)]
    """A loss that is no reason to roll back."""
    num_compared: Annotated[int, Field(ge=0)]
    """Subjects whose success stands against that of subjects of the other arm."""
    why: str
    """The verdict and its numbers in one sentence."""
