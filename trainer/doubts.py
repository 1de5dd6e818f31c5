"""Feedback that other feedback contradicts, found before it is learned from or rehearsed.

Two ways to be wrong. What was right once may not be any more, for a rule has changed. And some
feedback was never right: a slip of a finger, or a lie. Both show in what other people said about
similar questions.

Overtaken: newer feedback turns the answer down, or teaches another in its place (overtaken.py).

Outvoted: what others say of similar questions predicts another answer (voices.py). To doubt labels
that predictions from the other labels disagree with is confident learning (Northcutt et al. 2021,
JAIR 70:1373-1411). A subject has one voice in either.

What the anchor prompts contradict, and what they vouch for, is found by against_anchor.py.

Where every answer is worded anew nobody agrees with anybody, and nothing is doubted.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from tacit.contracts import ScreenedEvent
from trainer.claims import Claim, claims_of
from trainer.overtaken import overtaken
from trainer.voices import MIN_VOTES, Asked, Near, heard_nearby, speaking

MARGIN, MAJORITY = 0.05, 2.0
"""By how much, and how many times as much, another answer must be predicted as the one given."""


class Doubts(NamedTuple):
    """Keys of feedback that other feedback contradicts, by how."""

    overtaken: Mapping[str, str | None] = MappingProxyType({})
    """Was right once. With the answer that took its place, None where nobody names one."""
    outvoted: frozenset[str] = frozenset()
    """Was never right, and what objects to an answer that is."""

    @property
    def keys(self) -> frozenset[str]:
        """All of them."""
        return self.outvoted.union(self.overtaken)


def doubts_of(events: Sequence[ScreenedEvent]) -> Doubts:
    """Which of ``events``, oldest first, the others contradict.

    The same for the same events. Time grows with the square of their number: a quarter of a
    minute of a slow core for four thousand short questions.
    """
    claims = claims_of(events)
    if all(claim.good for claim in claims) and len({claim.answer for claim in claims}) < 2:
        return Doubts()  # nothing to disagree about
    space = Asked(events)
    was_right = overtaken(claims, space)
    standing = [claim for claim in claims if claim.event not in was_right or not claim.good]
    outvoted = _outvoted(standing, space) - was_right.keys()
    return Doubts(
        {events[number].event_key: named for number, named in sorted(was_right.items())},
        frozenset(events[number].event_key for number in outvoted),
    )


def _outvoted(claims: Sequence[Claim], space: Asked) -> set[int]:
    said = speaking(claims)
    nearby = heard_nearby([claim.event for claim in said], said, space)
    return {
        claim.event
        for claim, near in zip(said, nearby, strict=True)
        if _is_outvoted(claim, near, space)
    }


def _is_outvoted(claim: Claim, near: Near, space: Asked) -> bool:
    if len(near.voices) < MIN_VOTES:
        return False
    scores = near.predicted()
    own = scores.pop(claim.answer, 0.0)
    other = max(scores, key=scores.__getitem__, default="")
    best = max(scores.get(other, 0.0), 0.0)
    less, more = (own, best) if claim.good else (best, own)
    if more - less <= MARGIN or more <= MAJORITY * less:
        return False

    def contradicts(voice: Claim) -> bool:
        if voice.answer == claim.answer:
            return voice.good != claim.good
        return claim.good and voice.good and voice.answer == other

    return len({space.subjects[v.event] for v in near.voices if contradicts(v)}) >= MIN_VOTES
