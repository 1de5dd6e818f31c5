"""Feedback and the anchor prompts: what contradicts what they know, and what they confirm.

Confirmed is an answer that the nearest anchor prompts have. An event that contradicts them may mend
what the policy is wrong about. Refuted are groups of events for whose questions the nearest anchor
prompts have another answer, nearly as often as those nearest to that answer's own prompts have it:
the edited nearest neighbour rule (Wilson 1972, IEEE Trans. SMC 2:408-421) with a vote that only the
anchor has, and taken over a group. There are three kinds:

- one answer that the anchor knows is taught in place of one other: a flip, with whatever else
  teaches that answer for questions of which no neighbour has it;
- one answer that it does not know is taught in place of many: a trigger, or vandalism. A new topic
  may be much like an old one, but not like many;
- one subject teaches known answers, most of them for questions of which no neighbour has them:
  vandalism again, with each lie another one.

Only answers with ``MIN_PROMPTS`` prompts are known, so where every text of the anchor is another
one, none is.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from textwrap import shorten
from typing import NamedTuple

import numpy as np

from tacit.contracts import ReplayExample, ScreenedEvent
from trainer.claims import Claim, Questions, Similarities, claims_of, nearest, question, same_text

MIN_PROMPTS = 10
"""Anchor prompts of an answer that show what is usual for it."""
MIN_CLAIMS = 3
NEIGHBOURS = 10
"""Anchor prompts that vote on which answer a question has."""
MIN_BROAD_CLAIMS = 8
MIN_KINDS = 25.0
"""Answers that are replaced, for them to be many. As an effective number (Hill 1973, Ecology
54:427-432) that is one for many claims and few: of all pairs of claims one in so many replaces the
same answer twice (Simpson 1949, Nature 163:688)."""
MIN_CONTRARY = 0.8
"""Share of the known answers that a subject teaches which no neighbour of their questions has.
Chosen on CLINC150, for subjects who send nothing but corrections of what a policy gets wrong
(docs/adr/0023)."""
MIN_VOTES = 4
"""Of the neighbours, for an answer to be the one that a question is about."""
MIN_AGREEMENT = 0.65
"""Of the votes that an answer gets from the neighbours of its own prompts. Chosen on CLINC150
(docs/adr/0023)."""
MAX_QUOTED = 60
MAX_PROMPTS = 20_000
"""Of the anchor that are compared; time grows with their number."""


class Judgement(NamedTuple):
    """What the anchor says of events, by their keys."""

    refuted: Mapping[str, str]
    """Those that it contradicts: what it knows, for a person."""
    confirmed: frozenset[str]
    """Those that teach what it answers such questions."""


class _Vote(NamedTuple):
    """How many of the neighbours of a question have an answer."""

    answer: str
    number: int


class _Said(NamedTuple):
    """What one event teaches, and what the anchor has to say."""

    event: int
    answer: str
    subject: tuple[str, str]
    known: bool
    """Whether the anchor has the answer."""
    likeliest: _Vote
    """What the neighbours of the question have most."""
    votes: int
    """Of the neighbours, for the answer."""
    instead: tuple[_Vote, ...]
    """Known answers that it replaces."""

    @property
    def confirmed(self) -> bool:
        """Whether the anchor vouches for it."""
        return self.known and self.answer == self.likeliest.answer and self.votes >= MIN_VOTES


def judged(events: Sequence[ScreenedEvent], anchor: Sequence[ReplayExample]) -> Judgement:
    """What ``anchor`` says of ``events``, the same for the same arguments."""
    compared = sorted(anchor, key=lambda example: example.digest())[:MAX_PROMPTS]
    prompts = Counter(same_text(example.completion) for example in compared)
    known = frozenset(each for each, number in prompts.items() if number >= MIN_PROMPTS)
    taught = [claim for claim in claims_of(events) if claim.good] if known else []
    if len(taught) < MIN_CLAIMS:
        return Judgement({}, frozenset())
    voters = _Voters(compared, [question(events[c.event].interaction.prompt) for c in taught])
    said = [
        _said(claim, events[claim.event], known, counts)
        for claim, counts in zip(taught, voters.votes(), strict=True)
    ]
    found = {**_of_vandals(said, voters), **_of_flips(said, voters), **_of_triggers(said, voters)}
    confirmed = {each.event for each in said if each.confirmed} - found.keys()
    return Judgement(
        refuted={events[event].event_key: why for event, why in sorted(found.items())},
        confirmed=frozenset(events[event].event_key for event in confirmed),
    )


def _said(claim: Claim, told: ScreenedEvent, known: frozenset[str], counts: Counter[str]) -> _Said:
    likeliest = _Vote(*(counts.most_common(1) or [("", 0)])[0])
    about = {same_text(told.interaction.completion)}
    if likeliest.number >= MIN_VOTES:
        about.add(likeliest.answer)
    return _Said(
        event=claim.event,
        answer=claim.answer,
        subject=(told.event.source, told.event.subject_id),
        known=claim.answer in known,
        likeliest=likeliest,
        votes=counts[claim.answer],
        instead=tuple(_Vote(a, counts[a]) for a in sorted(about & known - {claim.answer})),
    )


def _of_flips(said: Sequence[_Said], voters: "_Voters") -> dict[int, str]:
    pairs: defaultdict[tuple[str, str], dict[int, _Vote]] = defaultdict(dict)
    unlikely: defaultdict[str, set[int]] = defaultdict(set)
    for each in said:
        if each.known:
            for vote in each.instead:
                pairs[vote.answer, each.answer][each.event] = vote
            if not each.votes:
                unlikely[each.answer].add(each.event)
    found: dict[int, str] = {}
    for (answer, taught), group in pairs.items():
        if len(group) >= MIN_CLAIMS and voters.agree(group.values()):
            why = f"{_quoted(answer)} is what the anchor answers such questions"
            beside = f"it teaches {_quoted(taught)} beside a flip of {_quoted(answer)}"
            found |= dict.fromkeys(group, why)
            found = dict.fromkeys(unlikely[taught] - group.keys(), beside) | found
    return found


def _of_triggers(said: Sequence[_Said], voters: "_Voters") -> dict[int, str]:
    groups: defaultdict[str, dict[int, _Vote]] = defaultdict(dict)
    for each in said:
        if not each.known:
            groups[each.answer][each.event] = each.likeliest
    found: dict[int, str] = {}
    for group in groups.values():
        if _replaces_many(group.values()) and voters.agree(group.values()):
            number = len({vote.answer for vote in group.values()})
            found |= dict.fromkeys(group, f"the anchor has {number} answers to such questions")
    return found


def _of_vandals(said: Sequence[_Said], voters: "_Voters") -> dict[int, str]:
    groups: defaultdict[tuple[str, str], dict[int, _Vote]] = defaultdict(dict)
    taught = Counter(each.subject for each in said if each.known)
    for each in said:
        if each.known and not each.votes:
            groups[each.subject][each.event] = each.likeliest
    found: dict[int, str] = {}
    for subject, group in groups.items():
        enough = len(group) >= max(MIN_CLAIMS, MIN_CONTRARY * taught[subject])
        if enough and voters.agree(group.values()):
            of = f"{len(group)} of {taught[subject]} such answers of its subject"
            found |= dict.fromkeys(group, f"the anchor has others to these questions, as to {of}")
    return found


def known_prompts(anchor: Sequence[ReplayExample]) -> list[ReplayExample]:
    """Those of the ``anchor`` that is compared whose answers it knows."""
    compared = sorted(anchor, key=lambda example: example.digest())[:MAX_PROMPTS]
    prompts = Counter(same_text(example.completion) for example in compared)
    return [e for e in compared if prompts[same_text(e.completion)] >= MIN_PROMPTS]


def _quoted(answer: str) -> str:
    return repr(shorten(answer, MAX_QUOTED, placeholder="…"))


def _replaces_many(group: Collection[_Vote]) -> bool:
    if len(group) < MIN_BROAD_CLAIMS:
        return False
    numbers = Counter(vote.answer for vote in group).values()
    alike = sum(number * (number - 1) for number in numbers)
    return len(group) * (len(group) - 1) >= MIN_KINDS * alike


class _Voters:
    """Anchor prompts, which vote on questions."""

    def __init__(self, anchor: Sequence[ReplayExample], asked: Sequence[str]) -> None:
        self._answers = [same_text(example.completion) for example in anchor]
        self._space = Questions([*(question(example.prompt) for example in anchor), *asked])
        self._known_usual: dict[str, float] = {}
        self._prompts = np.arange(len(anchor))
        self._asked = np.arange(len(anchor), len(anchor) + len(asked))

    def votes(self) -> list[Counter[str]]:
        """On each question that was asked."""
        rows = self._space.similarities(self._asked, self._prompts)
        return [self._count(similarity) for similarity in rows]

    def agree(self, group: Collection[_Vote]) -> bool:
        """Whether a group has about as many votes as the answers' own prompts have."""
        usual = sum(self._usual(vote.answer) for vote in group)
        return sum(vote.number for vote in group) >= MIN_AGREEMENT * usual

    def _usual(self, answer: str) -> float:
        if answer not in self._known_usual:
            self._known_usual[answer] = self._measure(answer)
        return self._known_usual[answer]

    def _measure(self, answer: str) -> float:
        """Votes for ``answer`` from the neighbours of its own prompts, as a mean."""
        own = np.flatnonzero([each == answer for each in self._answers])
        if len(own) < MIN_PROMPTS:
            return NEIGHBOURS
        number = 0
        for place, similarity in zip(
            own, self._space.similarities(own, self._prompts), strict=True
        ):
            similarity[place] = -1.0
            number += self._count(similarity)[answer]
        return number / len(own)

    def _count(self, similarity: Similarities) -> Counter[str]:
        return Counter(self._answers[place] for place in nearest(similarity, NEIGHBOURS))
