"""HarnessTask: what lm-evaluation-harness says of one policy on one of its tasks."""

from tacit.contracts.base import Part


class HarnessTask(Part):
    """One row of the harness's results table."""

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
