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

Outvoted: what others say of the ``VOICES`` most similar questions predicts another answer. The
prediction is kernel ridge regression on who said which answer is right, fitted anew around each
question without what its own subject said (Saunders et al. 1998, ICML; local learning: Bottou &
Vapnik 1992, Neural Comput. 4:888-900). To doubt labels that predictions from the other labels
disagree with is confident learning (Northcutt et al. 2021, JAIR 70:1373-1411). A subject has one
voice in either.

What the anchor prompts contradict, and what they vouch for, is found by against_anchor.py.

Where every answer is worded anew nobody agrees with anybody, and nothing is doubted.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tacit.contracts import ScreenedEvent
from trainer.claims import (
    Claim,
    Places,
    Questions,
    Similarities,
    claims_of,
    nearest,
    question,
)

VOICES = 50
"""Similar questions, of others, from which the answer is predicted."""
RIDGE = 2.0
"""Noise of a voice over the similarity of a question with itself, as variances."""
COMPLAINT = -0.5
"""What turning an answer down says of it, where confirming it says 1."""
MARGIN, MAJORITY = 0.05, 2.0
"""By how much, and how many times as much, another answer must be predicted as the one given."""
MIN_VOTES = 3
"""Subjects who must be for the other answer; and whose praise must be overtaken."""
NEWEST = 9
NEARBY = 30
"""Questions that may be among the newest."""
AGREED, UNNAMED = 0.5, 0.75
"""Of the newest more than so many turn an answer down, for the same other one or for none."""
MIXED_NEIGHBOURS = 5
MIN_MIXING = 0.85
"""Of the neighbours from the other side that chance would bring. Chosen on streams of one seed
(docs/adr/0020)."""


def doubted_keys(events: Sequence[ScreenedEvent]) -> frozenset[str]:
    """Keys of those ``events``, oldest first, that the others contradict.

    The same for the same events. Time grows with the square of their number: a quarter of a
    minute of a slow core for four thousand short questions.
    """
    claims = claims_of(events)
    if all(claim.good for claim in claims) and len({claim.answer for claim in claims}) < 2:
        return frozenset()  # nothing to disagree about
    space = _Asked(events)
    gone = _overtaken(claims, space)
    standing = [claim for claim in claims if claim.event not in gone or not claim.good]
    gone |= _outvoted(standing, space)
    return frozenset(events[number].event_key for number in gone)


class _Asked(Questions):
    """The questions of events, and the number of each one's subject."""

    def __init__(self, events: Sequence[ScreenedEvent]) -> None:
        asked = [question(event.interaction.prompt) for event in events]
        super().__init__(asked, by_words=True)
        names = [(event.event.source, event.event.subject_id) for event in events]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        self.subjects: NDArray[np.int64] = np.asarray([numbers[name] for name in names], np.int64)


def _overtaken(claims: Sequence[Claim], space: _Asked) -> set[int]:
    about: defaultdict[str, list[Claim]] = defaultdict(list)
    for claim in claims:
        about[claim.answer].append(claim)
    found: set[int] = set()
    for judged in about.values():
        taught = [claim for claim in judged if claim.good]
        if not taught or len(taught) == len(judged):
            continue
        rows = space.similarities(_places(taught), _places(judged))
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


def _mixing(praise: Sequence[Claim], refusals: Sequence[Claim], space: _Asked) -> float:
    """How often the two are neighbours; 1 if their questions are alike, 0 if they never are."""
    compared = [*praise, *refusals]
    places, good = _places(compared), np.asarray([claim.good for claim in compared])
    met = expected = 0.0
    for place, similarity in enumerate(space.similarities(places, places)):
        similarity[place] = -1.0
        nearest = np.argsort(-similarity, kind="stable")[: min(MIXED_NEIGHBOURS, len(good) - 1)]
        met += float(np.mean(good[nearest] != good[place]))
        expected += float(np.sum(good != good[place])) / (len(good) - 1)
    return met / expected


def _outvoted(claims: Sequence[Claim], space: _Asked) -> set[int]:
    # A correction says more by what it puts in place than by what it takes away.
    replaced = {claim.event for claim in claims if claim.good}
    said = [claim for claim in claims if claim.good or claim.event not in replaced]
    places = _places(said)
    subjects = space.subjects[places]
    found: set[int] = set()
    rows = space.similarities(places, places)
    for claim, subject, similarity in zip(said, subjects, rows, strict=True):
        similarity[subjects == subject] = -1.0
        near = nearest(similarity, VOICES)
        if _is_outvoted(claim, [said[place] for place in near], similarity[near], space):
            found.add(claim.event)
    return found


def _is_outvoted(
    claim: Claim, voices: Sequence[Claim], similarity: Similarities, space: _Asked
) -> bool:
    if len(voices) < MIN_VOTES:
        return False
    scores = _predicted(voices, similarity, space)
    own = scores.pop(claim.answer, 0.0)
    other = max(scores, key=lambda answer: scores[answer], default=None)
    best = max(scores.get(other, 0.0), 0.0)
    less, more = (own, best) if claim.good else (best, own)
    if more - less <= MARGIN or more <= MAJORITY * less:
        return False

    def contradicts(voice: Claim) -> bool:
        if voice.answer == claim.answer:
            return voice.good != claim.good
        return claim.good and voice.good and voice.answer == other

    return len({space.subjects[v.event] for v in voices if contradicts(v)}) >= MIN_VOTES


def _predicted(
    voices: Sequence[Claim], similarity: Similarities, space: _Asked
) -> dict[str | None, float]:
    """How right each answer of ``voices`` is where a question has ``similarity`` [n] to theirs.

    1 is what somebody says who confirms it of this very question, were there no noise.
    """
    places = _places(voices)
    kernel = np.stack([*space.similarities(places, places)])
    speaks = [(space.subjects[v.event], v.answer, v.good) for v in voices]
    times = Counter(speaks)  # who says the same of n similar questions has one voice, not n
    kernel[np.diag_indices(len(voices))] += [RIDGE * times[spoken] for spoken in speaks]
    scores: defaultdict[str | None, float] = defaultdict(float)
    for voice, share in zip(voices, np.linalg.solve(kernel, similarity), strict=True):
        scores[voice.answer] += float(share) * (1.0 if voice.good else COMPLAINT)
    return scores


def _first_of_each(claims: Sequence[Claim], space: _Asked) -> list[Claim]:
    """The first claim of each subject."""
    voices = {space.subjects[claim.event]: claim for claim in reversed(claims)}
    return [claim for claim in claims if voices[space.subjects[claim.event]] is claim]


def _place(claim: Claim) -> int:
    return claim.event


def _places(claims: Sequence[Claim]) -> Places:
    return np.asarray([claim.event for claim in claims])
