"""What an update reports: one StepMetrics a step, one TrainedPolicy at the end."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tacit.config import TrainerSettings
from tacit.contracts import Digest
from tacit.metrics import MetricName


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


def marked(step: StepMetrics, used: TrainerSettings, *, asked: TrainerSettings) -> StepMetrics:
    """``step`` with the size of its micro-batches, where memory made them smaller than asked."""
    tokens = used.micro_batch_tokens
    if tokens == asked.micro_batch_tokens:
        return step
    metrics = {**step.metrics, MetricName.MICRO_BATCH_TOKENS.value: float(tokens)}
    return step._replace(metrics=metrics)


def last_epoch(steps: Sequence[StepMetrics], *, num_epochs: int) -> dict[str, float]:
    """Mean of each metric over the last epoch's steps."""
    values: dict[str, list[float]] = defaultdict(list)
    for step in steps[-max(1, len(steps) // num_epochs) :]:
        for name, value in step.metrics.items():
            values[str(name)].append(value)
    return {name: sum(found) / len(found) for name, found in values.items()}
