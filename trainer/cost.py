"""What an update cost, for whoever decides on its candidate."""

from collections.abc import Sequence

from tacit.metrics import MetricName
from trainer.progress import StepMetrics


def cost_of(steps: Sequence[StepMetrics], *, seconds: float) -> dict[str, float]:
    """Wall-clock seconds, steps and tokens of an update, as metrics of its candidate.

    Tokens are counted as often as they were trained on; a method whose steps do not count them has
    none.
    """
    tokens = [
        step.metrics[MetricName.TOKENS] for step in steps if MetricName.TOKENS in step.metrics
    ]
    cost = {MetricName.COST_SECONDS.value: seconds, MetricName.COST_STEPS.value: float(len(steps))}
    return {**cost, MetricName.COST_TOKENS.value: sum(tokens)} if tokens else cost
