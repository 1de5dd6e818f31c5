"""What a candidate learned from and what that cost, in words and numbers."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from gatekeeper.desks import Screened
from tacit.contracts import EvalReport, Feedback, PolicyCandidate, ScreenedEvent
from tacit.metrics import MetricName

MAX_SAMPLES = 8


class Learned(NamedTuple):
    """What a candidate learned from."""

    num_events: int
    num_subjects: int
    kinds: Sequence[tuple[str, int]]
    sources: Sequence[tuple[str, int]]
    samples: Sequence[ScreenedEvent]
    """Spread evenly over what of the batch the visitor may read."""
    quarantined_share: float | None
    """Of all that was screened while the batch came together; None where nothing was."""


def summarize(
    events: Sequence[ScreenedEvent], beside: Screened, *, source: str | None = None
) -> Learned:
    """Counts of a batch in training order; ``beside`` is what came while it did.

    With ``source`` the samples are of that source alone.
    """
    readable = [each for each in events if source in (None, each.event.source)]
    step = max(1, len(readable) // MAX_SAMPLES)
    share = beside.num_quarantined / beside.num_events if beside.num_events else None
    return Learned(
        num_events=len(events),
        num_subjects=len({(e.event.source, e.event.subject_id) for e in events}),
        kinds=Counter(e.event.feedback.type for e in events).most_common(),
        sources=Counter(e.event.source for e in events).most_common(),
        samples=readable[::step][:MAX_SAMPLES],
        quarantined_share=share,
    )


def said(feedback: Feedback) -> str:
    """What a piece of feedback says."""
    match feedback.type:
        case "correction":
            return f"should be: {feedback.completion}"
        case "outcome":
            return f"{feedback.metric}: {_value(feedback.value)}"
        case "preference":
            return f"better: {feedback.chosen}\nthan: {feedback.rejected}"
        case "rating":
            scale = feedback.scale
            return f"{feedback.value:g} on a scale of {scale.low:g} to {scale.high:g}"
        case "critique":
            return feedback.text


def _value(value: bool | float) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}"


class Cost(NamedTuple):
    """What making and measuring a candidate took; None where it was not recorded."""

    training_s: float | None
    num_steps: int | None
    num_tokens: int | None
    evaluation_s: float | None


def cost_of(candidate: PolicyCandidate, report: EvalReport | None) -> Cost:
    """Cost of an update as its candidate records it, and of the evaluation after it."""
    metrics = candidate.metrics
    steps, tokens = metrics.get(MetricName.COST_STEPS), metrics.get(MetricName.COST_TOKENS)
    measured = None if report is None else report.created_at - candidate.created_at
    return Cost(
        training_s=metrics.get(MetricName.COST_SECONDS),
        num_steps=None if steps is None else round(steps),
        num_tokens=None if tokens is None else round(tokens),
        evaluation_s=None if measured is None else max(0.0, measured.total_seconds()),
    )
