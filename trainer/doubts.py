"""Feedback that other feedback contradicts, found before it is learned from or rehearsed.

Two ways to be wrong. What was right once may not be any more: a rule has changed, users reject the
old answer, and rehearsing it would keep teaching it. And some feedback was never right: a slip of a
finger, or a lie. Both show in what other people said about similar questions.

Overtaken: more than half of the newest ``NEWEST`` judgements of an answer to similar questions turn
it down, and for the same other answer where they name one: a policy that confuses topics is turned
down for many. Where nobody names one, it takes three quarters. And they do so where the answer was
right before, not on a topic of their own that the policy takes for this one: questions for which it
is turned down and for which it was praised are neighbours about as often as if they had been drawn
alike (nearest neighbours as a two-sample test: Schilling 1986, JASA 81:799-806; Henze 1988, Ann.
Statist. 16:772-783). Praise of fewer than ``MIN_VOTES`` subjects is overtaken by nothing.

Outvoted: what others say of similar questions predicts another answer (voices.py). To doubt labels
that predictions from the other labels disagree with is confident learning (Northcutt et al. 2021,
JAIR 70:1373-1411). A subject has one voice in either.

What the anchor prompts contradict, and what they vouch for, is found by against_anchor.py.

Where every answer is worded anew nobody agrees with anybody, and nothing is doubted.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tacit.contracts import ScreenedEvent
from trainer.claims import Claim, claims_of, nearest
from trainer.voices import MIN_VOTES, Asked, Near, heard_nearby, places_of, speaking

MARGIN, MAJORITY = 0.05, 2.0
"""By how much, and how many times as much, another answer must be predicted as the one given."""
NEWEST = 9
NEARBY = 30
"""Questions that may be among the newest."""
AGREED, UNNAMED = 0.5, 0.75
"""Of the newest more than so many turn an answer down, for the same other one or for none."""
MIXED_NEIGHBOURS = 5
MIN_MIXING = 0.85
"""Of the neighbours from the other side that chance would bring. Chosen on streams of one seed
(docs/adr/0020)."""


class Doubts(NamedTuple):
    """Keys of feedback that other feedback contradicts, by how."""

    overtaken: frozenset[str] = frozenset()
    """Was right once."""
    outvoted: frozenset[str] = frozenset()
    """Was never right, and what objects to an answer that is."""

    @property
    def keys(self) -> frozenset[str]:
        """All of them."""
        return self.overtaken | self.outvoted


def doubts_of(events: Sequence[ScreenedEvent]) -> Doubts:
    """Which of ``events``, oldest first, the others contradict.

    The same for the same events. Time grows with the square of their number: a quarter of a
    minute of a slow core for four thousand short questions.
    """
    claims = claims_of(events)
    if all(claim.good for claim in claims) and len({claim.answer for claim in claims}) < 2:
        return Doubts()  # nothing to disagree about
    space = Asked(events)
    overtaken = _overtaken(claims, space)
    standing = [claim for claim in claims if claim.event not in overtaken or not claim.good]
    outvoted = _outvoted(standing, space) - overtaken

    def keys(gone: set[int]) -> frozenset[str]:
        return frozenset(events[number].event_key for number in gone)

    return Doubts(keys(overtaken), keys(outvoted))


def _overtaken(claims: Sequence[Claim], space: Asked) -> set[int]:
    about: defaultdict[str, list[Claim]] = defaultdict(list)
    for claim in claims:
        about[claim.answer].append(claim)
    found: set[int] = set()
    for judged in about.values():
        taught = [claim for claim in judged if claim.good]
        if not taught or len(taught) == len(judged):
            continue
        rows = space.similarities(places_of(taught), places_of(judged))
        by_answer: defaultdict[str | None, set[int]] = defaultdict(set)
        for claim, similarity in zip(taught, rows, strict=True):
            near = nearest(similarity, NEARBY)
            newest = sorted((judged[place] for place in near), key=_place, reverse=True)
            instead, number = _agreed_against(_first_of_each(newest, space)[:NEWEST])
            if number > NEWEST * (UNNAMED if instead is None else AGREED):
                by_answer[instead].add(claim.event)
        for instead, events in by_answer.items():
            if len({space.subjects[event] for event in events}) < MIN_VOTES:
                continue
            against = [c for c in judged if not c.good and c.instead in (None, instead)]
            if _mixing([c for c in taught if c.event in events], against, space) >= MIN_MIXING:
                found |= events
    return found


def _agreed_against(voices: Sequence[Claim]) -> tuple[str | None, int]:
    """The other answer that most turn this one down for, None if none is named; how many agree.

    Who names none agrees with all.
    """
    instead = Counter(voice.instead for voice in voices if not voice.good)
    unnamed = instead.pop(None, 0)
    [(answer, number)] = instead.most_common(1) or [(None, 0)]
    return answer, unnamed + number


def _mixing(praise: Sequence[Claim], refusals: Sequence[Claim], space: Asked) -> float:
    """How often the two are neighbours; 1 if their questions are alike, 0 if they never are."""
    compared = [*praise, *refusals]
    places, good = places_of(compared), np.asarray([claim.good for claim in compared])
    met = expected = 0.0
    for place, similarity in enumerate(space.similarities(places, places)):
        similarity[place] = -1.0
        nearest = np.argsort(-similarity, kind="stable")[: min(MIXED_NEIGHBOURS, len(good) - 1)]
        met += float(np.mean(good[nearest] != good[place]))
        expected += float(np.sum(good != good[place])) / (len(good) - 1)
    return met / expected


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


def _first_of_each(claims: Sequence[Claim], space: Asked) -> list[Claim]:
    """The first claim of each subject."""
    voices = {space.subjects[claim.event]: claim for claim in reversed(claims)}
    return [claim for claim in claims if voices[space.subjects[claim.event]] is claim]


def _place(claim: Claim) -> int:
    return claim.event
