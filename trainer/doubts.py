"""Feedback that other feedback contradicts, found before it is learned from or rehearsed.

Two ways to be wrong. What was right once may not be any more: a rule has changed, users reject the
old answer, and rehearsing it would keep teaching it. And some feedback was never right: a slip of a
finger, or a lie. Both show in what other people said about similar questions.

Overtaken: more than half of the newest ``NEWEST`` judgements of an answer to similar questions turn
it down, and for the same other answer where they name one: a policy that confuses topics is turned
down for many. And they do so where the answer was right before, not on a topic of their own that
the policy takes for this one: questions for which it is turned down and for which it was praised
are neighbours about as often as if they had been drawn alike (nearest neighbours as a two-sample
test: Schilling 1986, JASA 81:799-806; Henze 1988, Ann. Statist. 16:772-783). Outvoted: of the
nearest ``NEIGHBOURS`` questions, several subjects were told one other answer and hardly anyone this
one. The second is the edited nearest neighbour rule (Wilson 1972, IEEE Trans. SMC 2:408-421), found
to hold for noisy labels of any kind by Bahri et al. 2020 (Deep k-NN for noisy labels, arXiv
2004.12289), with a majority that is wide rather than simple. A subject has one voice in either.

What the anchor prompts contradict is found by against_anchor.py.

Where every answer is worded anew nobody agrees with anybody, and nothing is doubted.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from tacit.contracts import ScreenedEvent
from trainer.claims import Claim, Places, Questions, claims_of, nearest, question

NEIGHBOURS = 10
"""Questions whose answers are compared."""
MIN_VOTES = 3
MAJORITY = 3
"""As many subjects and more must be for the other answer as are for this one."""
NEWEST = 9
NEARBY = 30
"""Questions that may be among the newest."""
MIXED_NEIGHBOURS = 5
MIN_MIXING = 0.85
"""Of the neighbours from the other side that chance would bring. Chosen on streams of one seed
(docs/adr/0020)."""


def doubted_keys(events: Sequence[ScreenedEvent]) -> frozenset[str]:
    """Keys of those ``events``, oldest first, that the others contradict.

    The same for the same events. Time grows with the square of their number: half a minute of one
    core for six thousand long questions, a few seconds for short ones.
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
    """The questions of events, and who asked."""

    def __init__(self, events: Sequence[ScreenedEvent]) -> None:
        super().__init__([question(event.interaction.prompt) for event in events])
        self.subjects = [(event.event.source, event.event.subject_id) for event in events]


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
            if number > NEWEST / 2:
                by_answer[instead].add(claim.event)
        for instead, events in by_answer.items():
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
    found: set[int] = set()
    for claim, similarity in zip(said, space.similarities(places, places), strict=True):
        similarity[places == claim.event] = -1.0
        near = [said[place] for place in nearest(similarity, NEIGHBOURS)]
        support, against = _votes(claim, _first_of_each(near, space))
        if against >= MIN_VOTES and against > MAJORITY * support:
            found.add(claim.event)
    return found


def _votes(claim: Claim, voices: Sequence[Claim]) -> tuple[int, int]:
    """How many of ``voices`` agree with ``claim``, and how many with what contradicts it most."""
    votes = Counter((voice.answer, voice.good) for voice in voices)
    good, bad = votes[claim.answer, True], votes[claim.answer, False]
    taught = Counter({answer: number for (answer, is_good), number in votes.items() if is_good})
    del taught[claim.answer]
    other = max(taught.values(), default=0)
    return (good, max(other, bad)) if claim.good else (bad + other, good)


def _first_of_each(claims: Sequence[Claim], space: _Asked) -> list[Claim]:
    """The first claim of each subject."""
    voices = {space.subjects[claim.event]: claim for claim in reversed(claims)}
    return [claim for claim in claims if voices[space.subjects[claim.event]] is claim]


def _place(claim: Claim) -> int:
    return claim.event


def _places(claims: Sequence[Claim]) -> Places:
    return np.asarray([claim.event for claim in claims])
