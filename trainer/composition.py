"""What a step is made of, as metrics: examples of each kind, and the share that is rehearsed."""

from collections import Counter
from collections.abc import Sequence

from tacit.metrics import MetricName
from trainer.examples import Example, ExampleKind


def composition(step: Sequence[Example]) -> dict[str, float]:
    """Counts of all kinds, those without examples included, and replay over all examples."""
    counts = Counter(example.kind for example in step)
    by_kind = {MetricName(f"train/examples_{k}").value: float(counts[k]) for k in ExampleKind}
    return {**by_kind, MetricName.REPLAY_SHARE.value: counts[ExampleKind.REPLAY] / len(step)}
