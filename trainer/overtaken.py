"""Feedback that was right once and is not any more: what newer feedback overtakes.

A rule has changed, users reject the old answer, and rehearsing it would keep teaching it.

More than half of the newest ``NEWEST`` judgements of an answer to similar questions turn it down,
and for the same other answer where they name one: a policy that confuses topics is turned down for
many. Where nobody names one, it takes three quarters. And they do so where the answer was right
before, not on a topic of their own that the policy takes for this one: questions for which it is
turned down and for which it was praised are neighbours about as often as if they had been drawn
alike (nearest neighbours as a two-sample test: Schilling 1986, JASA 81:799-806; Henze 1988, Ann.
Statist. 16:772-783). And they came later: where words do not tell answers apart and one of them
becomes more frequent, the other is turned down more often too, and is as right as before. Praise of
fewer than ``MIN_VOTES`` subjects is overtaken by nothing.

A policy that never learned the old answer, or has forgotten it, is not turned down for it. Then who
corrects a third answer on similar questions turns the old one down as well, if what they correct it
to succeeds the old one: it came later, for questions like those that the old one was praised for;
all of them or, where an answer holds for several topics, those within reach. A new topic comes
later too, but has questions of its own. A subject has one voice.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from trainer.claims import Claim, nearest
from trainer.voices import MIN_VOTES, Asked, places_of, speaking

NEWEST = 9
NEARBY = 30
"""Questions that may be among the newest."""
AGREED, UNNAMED = 0.5, 0.75
"""Of the newest more than so many turn an answer down, for the same other one or for none."""
MIXED_NEIGHBOURS = 5
MIN_MIXING = 0.85
"""Of the neighbours from the other side that chance would bring. Chosen on streams of one seed
(docs/adr/0020)."""
MIN_LATER, SUCCEEDS = 0.85, 0.95
"""Of the pairs of praise and what is against it those that came in this order, where the answer
itself is turned down and where another succeeds it. It is a half where both are said all the time,
and 0.8 where one goes from a fifth to four fifths of the answers."""


def overtaken(claims: Sequence[Claim], space: Asked) -> dict[int, str | None]:
    """Places of events whose praise newer ``claims`` overtake, and what is right in its place.

    None is in place of it where nobody names an answer.
    """
    about: defaultdict[str, list[Claim]] = defaultdict(list)
    for claim in claims:
        about[claim.answer].append(claim)
    found: dict[int, str | None] = {}
    for judged in about.values():
        found |= _turned_down(judged, space)
    corrections = _corrections(claims)
    for answer, successor in _successions(claims, corrections, space):
        by_event = {claim.event: claim for claim in about[answer]}
        for claim in about[successor]:
            if claim.good and claim.event in corrections:
                by_event.setdefault(claim.event, _verdict(claim, answer))
        again = _turned_down([by_event[event] for event in sorted(by_event)], space)
        found |= {event: named for event, named in again.items() if found.get(event) is None}
    return found


def _turned_down(judged: Sequence[Claim], space: Asked) -> dict[int, str | None]:
    """Praise of one answer that newer ones of the ``judged`` turn down, and for which other."""
    taught = [claim for claim in judged if claim.good]
    if not taught or len(taught) == len(judged):
        return {}
    rows = space.similarities(places_of(taught), places_of(judged))
    outnumbered: defaultdict[str | None, set[int]] = defaultdict(set)
    reached: defaultdict[str | None, list[Claim]] = defaultdict(list)
    for claim, similarity in zip(taught, rows, strict=True):
        newest = _newest([judged[place] for place in nearest(similarity, NEARBY)], space)
        for other in {voice.instead for voice in newest if not voice.good}:
            reached[other].append(claim)
        instead, votes = _agreed_against(newest)
        if votes > NEWEST * (UNNAMED if instead is None else AGREED):
            outnumbered[instead].add(claim.event)
    found: dict[int, str | None] = {}
    for instead, events in outnumbered.items():
        against = [c for c in judged if not c.good and c.instead in (None, instead)]
        praise = [c for c in taught if c.event in events]
        if (
            _has_quorum(events, space)
            and _later(_last_of_each(reached[instead], space), _first_of_each(against, space))
            >= MIN_LATER
            and _mixing(praise, against, space) >= MIN_MIXING
        ):
            found |= dict.fromkeys(events, instead)
    return found


def _successions(
    claims: Sequence[Claim], corrections: Collection[int], space: Asked
) -> Iterator[tuple[str, str]]:
    """Answers and those that were taught in their place later, whatever the policy had said."""
    said = speaking(claims)
    praise = [claim for claim in said if claim.good]
    outnumbered: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    reached: defaultdict[tuple[str, str], list[Claim]] = defaultdict(list)
    for claim, newest in zip(praise, _newest_nearby(praise, said, corrections, space), strict=True):
        for other in {voice.instead for voice in newest if voice.instead is not None}:
            reached[claim.answer, other].append(claim)
        instead, votes = _agreed_against(newest)
        if instead is not None and votes > NEWEST * AGREED:
            outnumbered[claim.answer, instead].add(claim.event)
    praised: defaultdict[str, list[Claim]] = defaultdict(list)
    for claim in praise:
        praised[claim.answer].append(claim)
    for (answer, instead), events in outnumbered.items():
        if not _has_quorum(events, space):
            continue
        # One voice a subject, as late as it praised the old answer and as early as it taught the
        # new one: an account that speaks often makes no succession.
        near = _last_of_each(reached[answer, instead], space)
        whole = _last_of_each(praised[answer], space)
        after = _first_of_each([c for c in praised[instead] if c.event in corrections], space)
        if _later(near, after) >= SUCCEEDS and (
            _mixing(near, after, space) >= MIN_MIXING or _mixing(whole, after, space) >= MIN_MIXING
        ):
            yield answer, instead


def _corrections(claims: Sequence[Claim]) -> frozenset[int]:
    """Places of events that put an answer in the place of another.

    Who confirms an answer, or prefers it to another, does not say that no third one is right.
    """
    return frozenset(c.event for c in claims if c.instead is not None and not c.compared)


def _newest_nearby(
    praise: Sequence[Claim], said: Sequence[Claim], corrections: Collection[int], space: Asked
) -> Iterator[list[Claim]]:
    """What the newest judgements and corrections nearby come to for each praised answer."""
    number = {answer: n for n, answer in enumerate({claim.answer for claim in said})}
    answers = np.asarray([number[claim.answer] for claim in said])
    corrects = np.asarray([claim.event in corrections for claim in said])
    rows = space.similarities(places_of(praise), places_of(said))
    for claim, similarity in zip(praise, rows, strict=True):
        # Nothing that is below the least similarity is near.
        similarity[~corrects & (answers != number[claim.answer])] = -1.0
        near = nearest(similarity, NEARBY)
        yield _newest([_verdict(said[place], claim.answer) for place in near], space)


def _newest(claims: Sequence[Claim], space: Asked) -> list[Claim]:
    """The newest of ``NEWEST`` subjects, newest first."""
    return _last_of_each(sorted(claims, key=_place), space)[:NEWEST]


def _has_quorum(events: Collection[int], space: Asked) -> bool:
    return len({space.subjects[event] for event in events}) >= MIN_VOTES


def _verdict(claim: Claim, answer: str) -> Claim:
    """What ``claim`` says of ``answer``: a correction to another is a refusal."""
    if claim.answer == answer:
        return claim
    return Claim(claim.event, answer, good=False, instead=claim.answer)


def _later(before: Sequence[Claim], after: Sequence[Claim]) -> float:
    """Of all pairs of the two those that came in this order."""
    first, second = places_of(before), places_of(after)
    return float(np.mean(first[:, None] < second))


def _agreed_against(voices: Sequence[Claim]) -> tuple[str | None, int]:
    """The other answer that most turn this one down for, None if none is named; how many agree.

    Who names none agrees with all.
    """
    instead = Counter(voice.instead for voice in voices if not voice.good)
    unnamed = instead.pop(None, 0)
    [(answer, number)] = instead.most_common(1) or [(None, 0)]
    return answer, unnamed + number


def _mixing(these: Sequence[Claim], those: Sequence[Claim], space: Asked) -> float:
    """How often the two are neighbours; 1 if their questions are alike, 0 if they never are."""
    compared = [*these, *those]
    places, side = places_of(compared), np.arange(len(compared)) < len(these)
    met = expected = 0.0
    for place, similarity in enumerate(space.similarities(places, places)):
        similarity[place] = -1.0
        near = nearest(similarity, min(MIXED_NEIGHBOURS, len(side) - 1), least=-0.5)
        met += float(np.mean(side[near] != side[place]))
        expected += float(np.sum(side != side[place])) / (len(side) - 1)
    return met / expected


def _first_of_each(claims: Sequence[Claim], space: Asked) -> list[Claim]:
    """The first claim of each subject."""
    voices = {space.subjects[claim.event]: claim for claim in reversed(claims)}
    return [claim for claim in claims if voices[space.subjects[claim.event]] is claim]


def _last_of_each(claims: Sequence[Claim], space: Asked) -> list[Claim]:
    """The last claim of each subject, last first."""
    return _first_of_each(list(reversed(claims)), space)


def _place(claim: Claim) -> int:
    return claim.event
