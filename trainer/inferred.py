"""Answers to questions that feedback left without one that stands, as other feedback predicts them.

Who only says that an answer was wrong, or whose correction is contradicted, asked a question all
the same, and what others taught of similar ones often tells what is right. Such pseudo-labels (Lee
2013, ICML Workshop on Challenges in Representation Learning) are rehearsed as lessons, so that a
question is not lost along with a wrong answer. They are predicted as in voices.py, from feedback
that stands and the anchor. A question is a near-duplicate cluster of prompts, whoever asks it.

Where nothing is predicted clearly, a question whose answer was right until a rule changed gets the
answer that took its place, if most praise of the old one is overtaken by now.

What is left out: what the anchor alone knows, what anybody turned down for this very question,
conversations that are compared by their end alone, and answers that similarity does not tell from
another. That is tried out on the questions whose answers are known: where the sentiment of a review
is asked for, the words of the question do not have the answer.

In: feedback, which of it is doubted, and the anchor. Out: replay examples. Where every answer is
worded anew nothing is predicted.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tacit.contracts import ReplayExample, ScreenedEvent
from trainer.against_anchor import known_prompts
from trainer.claims import Claim, claims_of, is_whole, same_text
from trainer.doubts import Doubts
from trainer.examples import MIN_WEIGHT
from trainer.replay import good_completion
from trainer.voices import MIN_VOTES, Asked, Near, heard_nearby, speaking

LEAST = 0.2
"""How right an answer must be predicted to be, where 1 is certain."""
LEAD = 1.2
"""And how many times as right as the next."""
MAX_CONFUSED = 0.1
"""Of the questions for which an answer is predicted, those that have one same other answer."""
CHANGED = 2
"""How many times as many subjects must praise an answer that is overtaken by now as praise it and
stand, for it to be a rule that changed. Chosen on CLINC150 (docs/adr/0024)."""
MAX_TRIED = 2_000
"""Newest questions with an answer that predictions are tried out on."""


def inferred_lessons(
    events: Sequence[ScreenedEvent],
    doubted: Doubts,
    anchor: Sequence[ReplayExample] = (),
    *,
    min_subjects: int = MIN_VOTES,
) -> list[ReplayExample]:
    """For each question of ``events`` that is left without a good answer the one that is predicted.

    What is ``doubted`` speaks for nothing. What ``anchor`` knows speaks as well, or a question
    about it would be taken for one about what feedback teaches; but ``min_subjects`` subjects, and
    three in any case, must have taught an answer, for as many questions. A lesson weighs what these
    weigh on the average, and no more than who asked. All lessons with one answer weigh no more than
    the feedback that taught it. The same for the same events, in their order.
    """
    claims, gone = claims_of(events), doubted.keys
    standing = [claim for claim in claims if events[claim.event].event_key not in gone]
    left = _left_open(events, claims, standing)
    taught = [c for c in standing if c.good and events[c.event].weight >= MIN_WEIGHT]
    enough = max(min_subjects, MIN_VOTES)
    if not left or not _taught_by(enough, taught, events):
        return []
    predictor = _Predictor(events, standing, anchor, enough)
    predicted = predictor.answers([question.asked_by for question in left])
    successors = _successors(claims, events, doubted)
    found = [
        (question, prediction)
        for question, clear in zip(left, predicted, strict=True)
        if (prediction := clear or predictor.taught(successors.get(question.cluster))) is not None
        and prediction.answer not in question.rejected
    ]
    if not found:
        return []
    said = [c for c in claims if c.good and events[c.event].event_key not in doubted.overtaken]
    confused = _confused(predictor, said, events)
    room = _weights(taught, events)
    lessons: dict[int, ReplayExample] = {}
    for question, (answer, _, places) in sorted(found, key=lambda each: -each[1].score):
        speakers = [events[place] for place in places]
        mean = sum(good_completion(speaker)[1] for speaker in speakers) / len(speakers)
        weight = min(mean, question.weight)
        if answer in confused or not MIN_WEIGHT <= weight <= room[answer]:
            continue
        room[answer] -= weight
        lessons[question.asked_by] = ReplayExample(
            prompt=events[question.asked_by].interaction.prompt,
            completion=_wording(speakers),
            origin="inferred",
            weight=weight,
        )
    return [lessons[place] for place in sorted(lessons)]


class _Question(NamedTuple):
    """One to which feedback leaves no answer."""

    asked_by: int
    """Place of the newest event about it."""
    cluster: str
    weight: float
    """What whoever asked it weighs at most."""
    rejected: frozenset[str]
    """Answers that anybody turned down, whether that is doubted or not."""


class _Prediction(NamedTuple):
    answer: str
    score: float
    speakers: Sequence[int]
    """Places of the events that taught it."""


class _Predictor:
    """Answers questions as what stands and the anchor predict."""

    def __init__(
        self,
        events: Sequence[ScreenedEvent],
        standing: Sequence[Claim],
        anchor: Sequence[ReplayExample],
        min_subjects: int,
    ) -> None:
        self._events, self._min_subjects = events, min_subjects
        known = known_prompts(anchor)
        heard = [claim for claim in standing if events[claim.event].weight >= MIN_WEIGHT]
        self._voices = speaking(heard) + [
            Claim(place, same_text(example.completion), good=True)
            for place, example in enumerate(known, start=len(events))
        ]
        self._space = Asked(events, known)
        self._speakers: defaultdict[str, list[int]] = defaultdict(list)
        for claim in heard:
            if claim.good:
                self._speakers[claim.answer].append(claim.event)

    def answers(self, asked: Sequence[int]) -> Iterator[_Prediction | None]:
        """The answer to the question of each of the events ``asked``, where one is clear."""
        for near in heard_nearby(asked, self._voices, self._space):
            found = _clearest(near, len(self._events))
            enough = found and self._are_enough(found.speakers)
            yield found if enough else None

    def taught(self, answer: str | None) -> _Prediction | None:
        """An answer that took the place of another, where enough of the events teach it."""
        if answer is None or not self._are_enough(self._speakers[answer]):
            return None
        return _Prediction(answer, 0.0, self._speakers[answer])

    def _are_enough(self, speakers: Sequence[int]) -> bool:
        spoke = [self._events[place] for place in speakers]
        subjects = {self._space.subjects[place] for place in speakers}
        return min(len(subjects), len({e.cluster for e in spoke})) >= self._min_subjects


def _successors(
    claims: Sequence[Claim], events: Sequence[ScreenedEvent], doubted: Doubts
) -> dict[str, str]:
    """By question the one answer that took the place of what was right for it once.

    Where much praise of the old answer stands it is no rule that changed, and what is named for
    single questions is mostly not right. Nor is what took its place and was overtaken itself.
    """
    standing: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
    overtaken: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
    named: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
    for claim in claims:
        event = events[claim.event]
        if not claim.good or event.weight < MIN_WEIGHT or event.event_key in doubted.outvoted:
            continue
        gone = event.event_key in doubted.overtaken
        subject = event.event.source, event.event.subject_id
        (overtaken if gone else standing)[claim.answer].add(subject)
        if (successor := doubted.overtaken.get(event.event_key)) is not None:
            named[event.cluster].add((claim.answer, successor))
    changed = {
        answer
        for answer, subjects in overtaken.items()
        if len(subjects) >= CHANGED * len(standing[answer])
    }
    found = {}
    for cluster, pairs in named.items():
        stands = {new for old, new in pairs if old in changed and new not in changed}
        if len(stands) == 1:
            found[cluster] = min(stands)
    return found


def _left_open(
    events: Sequence[ScreenedEvent], claims: Sequence[Claim], standing: Sequence[Claim]
) -> list[_Question]:
    answered = {events[claim.event].cluster for claim in standing if claim.good}
    about: defaultdict[str, list[Claim]] = defaultdict(list)
    for claim in claims:
        about[events[claim.event].cluster].append(claim)
    found = []
    for cluster in about.keys() - answered:
        asked_by = max(claim.event for claim in about[cluster])
        if is_whole(events[asked_by].interaction.prompt):
            rejected = frozenset(claim.answer for claim in about[cluster] if not claim.good)
            weight = max(events[claim.event].weight for claim in about[cluster])
            found.append(_Question(asked_by, cluster, weight, rejected))
    return sorted(found)


def _taught_by(number: int, taught: Sequence[Claim], events: Sequence[ScreenedEvent]) -> bool:
    """Whether so many taught any one answer; not so where each is in its own words."""
    subjects: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
    for claim in taught:
        said = events[claim.event].event
        subjects[claim.answer].add((said.source, said.subject_id))
    return any(len(found) >= number for found in subjects.values())


def _clearest(near: Near, num_events: int) -> _Prediction | None:
    """The answer that is predicted clearly, with those of the events that taught it."""
    if not near.voices:
        return None
    scores = near.predicted()
    *others, first = sorted(scores, key=scores.__getitem__)
    next_best = max(scores[others[-1]], 0.0) if others else 0.0
    if scores[first] <= max(LEAST, LEAD * next_best):
        return None
    behind = [v.event for v in near.voices if v.good and v.answer == first]
    return _Prediction(first, scores[first], [place for place in behind if place < num_events])


def _confused(
    predictor: _Predictor, said: Sequence[Claim], events: Sequence[ScreenedEvent]
) -> set[str]:
    """Answers that are predicted for questions to which people keep giving one same other."""
    tried = [c for c in said if events[c.event].weight >= MIN_WEIGHT][-MAX_TRIED:]
    predicted = predictor.answers([claim.event for claim in tried])
    met = {
        (prediction.answer, claim.answer, events[claim.event].cluster)
        for claim, prediction in zip(tried, predicted, strict=True)
        if prediction is not None
    }
    number = Counter((answer, given) for answer, given, _ in met)
    return {
        answer
        for (answer, given), times in number.items()
        if given != answer
        and times >= MIN_VOTES
        and times > MAX_CONFUSED * (times + number[answer, answer])
    }


def _weights(taught: Sequence[Claim], events: Sequence[ScreenedEvent]) -> defaultdict[str, float]:
    """What each answer was taught with; many reports on one question count as the weightiest."""
    heaviest: defaultdict[tuple[str, str], float] = defaultdict(float)
    for claim in taught:
        event = events[claim.event]
        key = claim.answer, event.cluster
        heaviest[key] = max(heaviest[key], event.weight)
    weights: defaultdict[str, float] = defaultdict(float)
    for (answer, _), weight in heaviest.items():
        weights[answer] += weight
    return weights


def _wording(speakers: Sequence[ScreenedEvent]) -> str:
    """What most subjects wrote; it differs in case and spaces at most."""
    texts = {
        (speaker.event.source, speaker.event.subject_id): good_completion(speaker)[0]
        for speaker in speakers
    }
    [(text, _)] = Counter(texts.values()).most_common(1)
    return text
