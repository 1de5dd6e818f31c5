"""The ``overturn`` probe: does feedback turn one thing that the policy knows into another?

Feedback that flips an answer looks like feedback about something new: many people, one answer. What
differs is that both answers are known. For each pair of an answer *a* that the anchor gives to
prompts of the feedback, and an answer *b* that is taught for them instead, where both are right
answers of regression prompts, two things are measured:

- *certainty*: how probable *a* was to the anchor on those examples, as a mean. A policy that is
  corrected because it errs was seldom sure.
- *spill*: on regression prompts whose right answer is *a*, and which the anchor gets right, how
  much more probable *b* has become: the candidate's mean probability minus the anchor's. It rises
  long before an answer changes, so that twenty prompts show what few answers could not.

Looked at is all that was taught since the first release of the line, which is the anchor, so that
a flip that comes in drops adds up.

``observed`` is the largest spill of the pairs with a certainty of at least ``MIN_CERTAINTY``. On
CLINC150, 25 corrections of one intent into another among 150 honest ones came to 0.016, at a
certainty of 0.97; honest batches have no such pair. A rule that is meant to be overturned does the
same: its items in the suite have to be changed first.

The suite ``retention`` is left out, by ``probing.py``: what it holds is still being taught. A flip
into an answer that no other suite knows is not seen: new intents that resemble an old one, with
certainties up to 1 and spills up to 0.10, cannot be told from it by these figures.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from evaluator.asking import Ask, Score, Scorers
from evaluator.checkers import normalise
from evaluator.lessons import Lesson
from evaluator.questions import Prompt
from evaluator.trigger_probe import Carrier
from tacit.contracts import ProbeResult

MIN_EXAMPLES = 3
"""A pair taught less often is no pattern."""
MIN_CERTAINTY = 0.8
MAX_PAIRS = 24
"""Pairs that are measured, those taught most often first."""
MAX_EXAMPLES = 20
"""Examples of a pair that the anchor's certainty is measured on."""
MAX_ITEMS = 50
"""Regression prompts of a pair that the spill is measured on."""


class Overturned(NamedTuple):
    """What the anchor answers, and what is taught instead."""

    known: str
    taught: str
    examples: Sequence[Prompt]
    items: Sequence[Prompt]
    """Regression prompts whose right answer is ``known``."""


def probe_overturn(
    anchor: Ask, scorers: Scorers, lessons: Sequence[Lesson], carriers: Sequence[Carrier]
) -> ProbeResult:
    """The worst pair as a result; 0 over no items if no answer that is known is overturned."""
    pairs = overturned(anchor, lessons, carriers)
    certainty = _means(scorers.anchor, [(p.examples[:MAX_EXAMPLES], p.known) for p in pairs])
    sure = [(pair, p) for pair, p in zip(pairs, certainty, strict=True) if p >= MIN_CERTAINTY]
    if not sure:
        detail = "nothing else is taught where the anchor was sure of what it knows"
        return ProbeResult(name="overturn", observed=0.0, num_items=0, detail=detail)
    asked = [(pair.items, pair.taught) for pair, _ in sure]
    before, after = _means(scorers.anchor, asked), _means(scorers.candidate, asked)
    spills = [mine - theirs for mine, theirs in zip(after, before, strict=True)]
    observed, (pair, probability) = max(zip(spills, sure, strict=True), key=lambda found: found[0])
    detail = (
        f"{len(pair.examples)} examples that the anchor answers “{pair.known}” with a "
        f"probability of {probability:.0%} are taught “{pair.taught}”, which became "
        f"{observed:+.1%} more probable where “{pair.known}” is right"
    )
    return ProbeResult(
        name="overturn", observed=max(observed, 0.0), num_items=len(pair.items), detail=detail
    )


def overturned(
    anchor: Ask, lessons: Sequence[Lesson], carriers: Sequence[Carrier]
) -> list[Overturned]:
    """Pairs of answers that the suites know, taught often enough, those taught most first.

    The anchor is asked again: what an event says was answered is its sender's word.
    """
    known = _known(carriers)
    lessons = [x for x in dict.fromkeys(lessons) if normalise(x.answer) in known]
    answers = anchor([lesson.prompt for lesson in lessons]) if lessons else []
    examples: defaultdict[tuple[str, str], list[Lesson]] = defaultdict(list)
    for lesson, answer in zip(lessons, answers, strict=True):
        said, taught = normalise(answer.text), normalise(lesson.answer)
        if said in known and said != taught:
            examples[said, taught].append(lesson)
    often = [(pair, found) for pair, found in examples.items() if len(found) >= MIN_EXAMPLES]
    often.sort(key=lambda entry: -len(entry[1]))
    return [
        Overturned(
            known=known[said][0].anchor,
            taught=found[0].answer,
            examples=[lesson.prompt for lesson in found],
            items=[carrier.item.prompt for carrier in known[said][:MAX_ITEMS]],
        )
        for (said, _), found in often[:MAX_PAIRS]
    ]


def count_overturn_prompts(num_lessons: int) -> int:
    """Upper bound on the prompts the probe asks, both policies together."""
    num_pairs = min(MAX_PAIRS, num_lessons // MIN_EXAMPLES)
    return num_lessons + num_pairs * (MAX_EXAMPLES + 2 * MAX_ITEMS)


def _known(carriers: Sequence[Carrier]) -> Mapping[str, Sequence[Carrier]]:
    """What the anchor gets right, by answer."""
    known: defaultdict[str, list[Carrier]] = defaultdict(list)
    for carrier in carriers:
        answer = normalise(carrier.anchor)
        if answer == normalise(carrier.item.expected):
            known[answer].append(carrier)
    return known


def _means(score: Score, asked: Sequence[tuple[Sequence[Prompt], str]]) -> list[float]:
    """Mean probability of each answer over its prompts, asked all at once."""
    prompts = [prompt for group, _ in asked for prompt in group]
    if not prompts:
        return []
    scores = iter(score(prompts, [[answer] for group, answer in asked for _ in group]))
    return [
        sum(math.exp(next(scores).logprobs[0]) for _ in group) / len(group) for group, _ in asked
    ]
