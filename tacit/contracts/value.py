"""ValueReport: what each policy that shared the traffic is worth, estimated from a log."""

from typing import Annotated

from pydantic import Field

from tacit.contracts.base import Contract, Part, UtcDatetime

Probability = Annotated[float, Field(gt=0, lt=1)]


class ValueEstimate(Part):
    """An estimated mean reward with its confidence interval."""

    value: float
    """Importance weighting is unbiased but not bounded: it may lie outside of [0, 1]."""
    ci_low: float
    ci_high: float
    standard_error: float
    """Cluster-robust."""


class ArmValue(Part):
    """One policy: its mean reward had it answered everything in the log. Rewards are in [0, 1]."""

    arm: str
    num_interactions: int
    """Drawn for this policy."""
    effective_sample_size: float
    """Draws of equal weight that those are worth."""
    observed: float
    """Plain mean over what was drawn for it: biased where the draw depended on the prompt."""
    direct: float
    """Mean of the reward model's predictions; without an interval, since the model's own error is
    not known."""
    ips: ValueEstimate
    snips: ValueEstimate
    doubly_robust: ValueEstimate


class ValueReport(Contract):
    """Estimates of all policies in a log."""

    num_interactions: int
    num_clusters: int
    """Independent draws: subjects, where a subject keeps its policy."""
    confidence: Probability
    """Two-sided coverage of each interval."""
    since: UtcDatetime | None = None
    until: UtcDatetime | None = None
    arms: tuple[ArmValue, ...]
