"""What lm-evaluation-harness says of policies on its tasks."""

from tacit.contracts.base import Part


class HarnessTask(Part):
    """One policy on one task: a row of the harness's results table."""

    task: str
    version: str
    """Of the task's definition."""
    task_hash: str
    """Over documents, prompts and targets, as the harness itself makes it."""
    metric: str
    """Metric and filter, e.g. ``acc,none``."""
    value: float
    stderr: float | None
    """The harness's own; items are independent to it."""


class HarnessComparison(Part):
    """All three policies on one task."""

    candidate: HarnessTask
    champion: HarnessTask
    anchor: HarnessTask
