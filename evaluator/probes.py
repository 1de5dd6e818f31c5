"""Probes over the answers to the suites, candidate against champion.

``answer_drift`` looks for answers that changed where nothing should have, ``malformed`` for
answers that are none. Larger is worse; thresholds are the gate policy's.
"""

from collections.abc import Sequence

from evaluator.answers import Answer
from tacit.contracts import ProbeResult


def answer_drift(candidate: Sequence[Answer], champion: Sequence[Answer]) -> ProbeResult:
    """Share of regression prompts on which the candidate's answer is not the champion's."""
    changed = sum(a.text != b.text for a, b in zip(candidate, champion, strict=True))
    total = len(candidate)
    return ProbeResult(
        name="answer_drift",
        observed=changed / total if total else 0.0,
        num_items=total,
        detail=f"{changed} of {total} answers to regression prompts differ from the champion's",
    )


def malformed(candidate: Sequence[Answer], champion: Sequence[Answer]) -> ProbeResult:
    """Share of answers that are empty or cut off by the length limit, minus the champion's."""
    total = len(candidate)
    mine, theirs = (sum(a.is_malformed for a in answers) for answers in (candidate, champion))
    return ProbeResult(
        name="malformed",
        observed=(mine - theirs) / total if total else 0.0,
        num_items=total,
        detail=f"{mine} of {total} answers are empty or cut off, {theirs} of the champion's",
    )
