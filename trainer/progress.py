"""What an update reports: one StepMetrics a step, one TrainedPolicy at the end."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from tacit.contracts import Digest


class StepMetrics(NamedTuple):
    """Metrics of one optimizer step."""

    step: int
    """1 to ``num_steps``; starts at 1 again if a lost worker makes the update start again."""
    num_steps: int
    metrics: dict[str, float]
    """Names are those of ``tacit.metrics``."""


@dataclass(frozen=True)
class TrainedPolicy:
    """What came out of an update, and on CPU all it is a function of beside batch and parent."""

    weights: Digest
    config: dict[str, Any]
    """Resolved settings."""
    seed: int
    world_size: int
    versions: dict[str, str]
    metrics: dict[str, float]
    """Means over the last epoch."""
