"""What an update cost, from its steps."""

from trainer.cost import cost_of
from trainer.progress import StepMetrics


def test_tokens_are_summed_over_steps_and_absent_where_nobody_counts_them() -> None:
    steps = [StepMetrics(n, 2, {"train/tokens": 100.0 * n, "train/loss": 1.0}) for n in (1, 2)]
    assert cost_of(steps, seconds=3.5) == {
        "cost/seconds": 3.5,
        "cost/steps": 2.0,
        "cost/tokens": 300.0,
    }
    bare = [step._replace(metrics={}) for step in steps]
    assert cost_of(bare, seconds=3.5) == {"cost/seconds": 3.5, "cost/steps": 2.0}
