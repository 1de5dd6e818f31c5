"""Outcomes and ratings as rewards in [-1, 1], of which more is better.

Stars mean something else to everyone: one subject's 3 is another's 5. So where a subject rated
often enough in a batch, its ratings count relative to what it usually gives:

    m = sum(r) / (n + 1)        reward = (r - m) / (1 + |m|)

Taking a user's own mean off is the oldest rule of collaborative filtering (Resnick et al. 1994,
GroupLens); the 1 in the denominator damps it as Koren 2010 (Factor in the neighbors, section 2.1)
damps a user's bias, as though everyone had given one neutral rating more. So a subject that rates
everything alike is heard, ever more softly, and never turned into its opposite. Dividing by the
largest value that r - m can have keeps rewards in [-1, 1] and in order.

Thumbs have no scale to differ about, and most people only ever point one way, so a subject whose
ratings are all at an end of their scale is taken at its word.
"""

import math
from collections import defaultdict
from collections.abc import Sequence

from tacit.contracts import Outcome, Rating, ScreenedEvent

MIN_RATINGS = 3
"""With fewer ratings in the batch a subject's mean says little, so they count as they are."""


def rewards(events: Sequence[ScreenedEvent]) -> list[float | None]:
    """The reward of each event, None where its feedback is neither an outcome nor a rating.

    Does not depend on the order of ``events``.
    """
    plain = [_reward(event) for event in events]
    given: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for event, reward in zip(events, plain, strict=True):
        if reward is not None and _is_rating(event):
            given[_subject(event)].append(reward)
    usual = {subject: _usual(values) for subject, values in given.items()}
    return [
        relative(reward, usual[_subject(event)])
        if reward is not None and _is_rating(event)
        else reward
        for event, reward in zip(events, plain, strict=True)
    ]


def relative(reward: float, usual: float) -> float:
    """A rating in [-1, 1] relative to the subject's usual one, in [-1, 1] again."""
    return (reward - usual) / (1 + abs(usual))


def signal(feedback: Outcome | Rating) -> float:
    """The feedback as a number in [-1, 1]; a failed bool is -1."""
    if isinstance(feedback, Rating):
        return feedback.normalized()
    if isinstance(feedback.value, bool):
        return 1.0 if feedback.value else -1.0
    return feedback.value


def _reward(event: ScreenedEvent) -> float | None:
    feedback = event.event.feedback
    if not isinstance(feedback, Outcome | Rating):
        return None
    return signal(feedback) if event.reward is None else event.reward


def _usual(values: Sequence[float]) -> float:
    """The damped mean, 0 for too few values and for thumbs."""
    if len(values) < MIN_RATINGS or all(abs(value) == 1 for value in values):
        return 0.0
    return math.fsum(values) / (len(values) + 1)  # fsum: the same whatever the order


def _is_rating(event: ScreenedEvent) -> bool:
    return isinstance(event.event.feedback, Rating)


def _subject(event: ScreenedEvent) -> tuple[str, str]:
    return event.event.source, event.event.subject_id
