"""Answers to questions whose own feedback left none that stands, as other feedback predicts them.

Who only says that an answer was wrong, or whose correction is contradicted, asked a question all
the same, and what others taught of similar ones often tells what is right. Such pseudo-labels (Lee
2013, ICML Workshop on Challenges in Representation Learning) are rehearsed as lessons, so that a
question is not lost along with a wrong answer. They are predicted as in voices.py, from feedback
that stands and the anchor; what is not predicted clearly, and what the anchor alone knows, is left
out.

In: feedback, which of it is doubted, and the anchor. Out: replay examples. Where every answer is
worded anew nothing is predicted.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence

from tacit.contracts import ReplayExample, ScreenedEvent
from trainer.against_anchor import known_prompts
from trainer.claims import Claim, claims_of, same_text
from trainer.examples import MIN_WEIGHT
from trainer.replay import good_completion
from trainer.voices import MIN_VOTES, Asked, Near, heard_nearby, speaking

LEAST = 0.2
"""How right an answer must be predicted to be, where 1 is certain."""
LEAD = 1.2
"""And how many times as right as the next."""


def inferred_lessons(
    events: Sequence[ScreenedEvent],
    doubted: Collection[str],
    anchor: Sequence[ReplayExample] = (),
) -> list[ReplayExample]:
    """Of each of ``events`` whose feedback leaves no good answer, the answer that others predict.

    ``doubted`` are the keys of those that speak for nothing. What ``anchor`` knows speaks as well,
    or a question about it would be taken for one about what feedback teaches; but three subjects
    must have taught an answer for it to be a lesson, whose weight is their mean trust weight. The
    same for the same events, in their order.
    """
    claims = claims_of(events)
    standing = [claim for claim in claims if events[claim.event].event_key not in doubted]
    answered = {claim.event for claim in standing if claim.good}
    asked = sorted({claim.event for claim in claims} - answered)
    if not asked or not _has_votes(standing, events):
        return []
    rejected: defaultdict[int, set[str]] = defaultdict(set)
    for claim in standing:
        if not claim.good:
            rejected[claim.event].add(claim.answer)
    known = known_prompts(anchor)
    voices = speaking(standing) + [
        Claim(place, same_text(example.completion), good=True)
        for place, example in enumerate(known, start=len(events))
    ]
    space, found = Asked(events, known), []
    for event, near in zip(asked, heard_nearby(asked, voices, space), strict=True):
        clearest = _clearest(near, rejected[event])
        behind = [claim.event for claim in clearest if claim.event < len(events)]
        if len({space.subjects[number] for number in behind}) >= MIN_VOTES:
            found.append(_lesson(events[event], [events[number] for number in behind]))
    return [lesson for lesson in found if lesson is not None]


def _has_votes(claims: Sequence[Claim], events: Sequence[ScreenedEvent]) -> bool:
    """Whether enough have taught any one answer; not so where each is in its own words."""
    subjects: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
    for claim in claims:
        if claim.good:
            taught = events[claim.event].event
            subjects[claim.answer].add((taught.source, taught.subject_id))
    return any(len(found) >= MIN_VOTES for found in subjects.values())


def _clearest(near: Near, rejected: Collection[str]) -> list[Claim]:
    """Who is for the answer that is predicted clearly; nobody where none is, or a rejected one."""
    if not near.voices:
        return []
    scores = near.predicted()
    *others, first = sorted(scores, key=scores.__getitem__)
    next_best = max(scores[others[-1]], 0.0) if others else 0.0
    if first in rejected or scores[first] <= max(LEAST, LEAD * next_best):
        return []
    return [voice for voice in near.voices if voice.good and voice.answer == first]


def _lesson(about: ScreenedEvent, speakers: Sequence[ScreenedEvent]) -> ReplayExample | None:
    taught = [good_completion(speaker) for speaker in speakers]
    weight = sum(weight for _, weight in taught) / len(taught)
    if weight < MIN_WEIGHT:
        return None
    # They differ in case and spaces at most.
    [(completion, _)] = Counter(completion for completion, _ in taught).most_common(1)
    return ReplayExample(
        prompt=about.interaction.prompt, completion=completion, origin="inferred", weight=weight
    )
