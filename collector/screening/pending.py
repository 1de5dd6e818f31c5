"""What corrections and preferences wait to be trained on, indexed by phrase and by prompt.

Two questions in constant time: how many reports, of how many people, share a phrase of the prompt
and teach the same answer; and which answers do others teach for this prompt. The index mirrors the
newest rows of the events table and is brought up to date from it, so a restart, a sealed batch or a
rollback needs no message.

Memory is bounded in lessons and in phrases. Phrases are looked up only among the reports that teach
one answer, and only once these are enough for a burst; until then a phrase is 8 bytes.
"""

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from sqlalchemy import ColumnElement, Select, and_, func, or_, select, union_all
from sqlalchemy.orm import Session

from collector.screening.clusters import answer_of, normalized, phrases_of, prompt_text
from collector.screening.phrases import PhraseSenders, Senders, count, phrase_hashes, uncount
from collector.tables import EventRow
from tacit.contracts import EventStatus, FeedbackEvent, InlineInteraction

TEACHING_KINDS = ("correction", "preference")
MAX_LESSONS = 10_000
"""The newest so many are looked at, which bounds memory where nothing is trained for long."""
MAX_PHRASES = 1_000_000
"""The newest lessons whose phrases come to so many together have theirs looked at: all 10,000 if
prompts have 100 words, 1,000 if they have 1,000."""
_LOAD_CHUNK = 500


class Lesson(NamedTuple):
    """What one event teaches."""

    subject: str
    """``source/subject_id``."""
    kind: str
    plain: str
    """The normalised prompt as it is: that alike prompts have other answers contradicts nothing."""
    answer: str


class Burst(NamedTuple):
    """A phrase many reports share and few people send."""

    phrase: str
    num_events: int
    num_subjects: int


class _Kept(NamedTuple):
    """A lesson in the index, without its texts."""

    subject: str
    prompt: int | None
    """None for a preference: it contradicts nothing."""
    answer: int


@dataclass(slots=True)
class _Taught:
    """The lessons that teach one answer."""

    sequences: set[int] = field(default_factory=set)
    senders: PhraseSenders | None = None
    """None while they are too few for a burst."""


class PendingIndex:
    """Lessons by sequence of their event; not safe to share between threads."""

    def __init__(self, *, max_words: int) -> None:
        """``max_words``: of each prompt the last so many are looked at."""
        self._max_words = max_words
        self.clear()

    def refresh(self, session: Session, *, policy: str, cycle_start: int) -> None:
        """Take out what is no longer pending and add what is, as the events table has it."""
        newest = _newest(policy, cycle_start)
        if self._is_up_to_date(session, newest.subquery().c.sequence):
            return
        present = set(session.scalars(newest))
        for sequence in self._lessons.keys() - present:
            self._remove(sequence)
        missing = sorted(present - self._lessons.keys())
        for start in range(0, len(missing), _LOAD_CHUNK):
            self._load(session, missing[start : start + _LOAD_CHUNK])

    def clear(self) -> None:
        """Forget all, after a transaction whose additions were rolled back."""
        self._lessons: dict[int, _Kept] = {}
        self._phrases: dict[int, array[int]] = {}
        self._num_phrases = 0
        self._taught: dict[int, _Taught] = {}
        self._senders_of_answer: dict[int, dict[int, Senders]] = {}

    def add(self, sequence: int, lesson: Lesson) -> None:
        """Count ``lesson`` as pending, in place of the oldest if there are too many."""
        kept = _Kept(
            subject=lesson.subject,
            prompt=hash(lesson.plain) if lesson.kind == "correction" else None,
            answer=hash(lesson.answer),
        )
        self._lessons[sequence] = kept
        self._taught.setdefault(kept.answer, _Taught()).sequences.add(sequence)
        self._add_phrases(sequence, phrase_hashes(lesson.plain, max_words=self._max_words))
        if kept.prompt is not None:
            answers = self._senders_of_answer.setdefault(kept.prompt, {})
            count(answers.setdefault(kept.answer, {}), lesson.subject)
        if len(self._lessons) > MAX_LESSONS:
            self._remove(next(iter(self._lessons)))

    def burst(self, lesson: Lesson, *, max_events: int, min_subject_share: float) -> Burst | None:
        """The worst burst that ``lesson`` would be part of, if any."""
        taught = self._taught.get(hash(lesson.answer))
        if taught is None or len(taught.sequences) < max_events:
            return None
        bursts = [
            burst
            for burst in self._shared(lesson, self._senders(taught))
            if burst.num_events > max_events
            and burst.num_subjects < min_subject_share * burst.num_events
        ]
        return max(bursts, key=lambda b: (b.num_events / b.num_subjects, b.phrase), default=None)

    def contradicts(self, lesson: Lesson) -> bool:
        """Whether someone else teaches another answer for the prompt."""
        answers = self._senders_of_answer.get(hash(lesson.plain), {})
        return lesson.kind == "correction" and any(
            senders.keys() - {lesson.subject}
            for answer, senders in answers.items()
            if answer != hash(lesson.answer)
        )

    def _senders(self, taught: _Taught) -> PhraseSenders:
        if taught.senders is None:
            taught.senders = PhraseSenders()
            for sequence in taught.sequences & self._phrases.keys():
                taught.senders.add(self._phrases[sequence], self._lessons[sequence].subject)
        return taught.senders

    def _shared(self, lesson: Lesson, senders_of: PhraseSenders) -> Iterator[Burst]:
        for phrase in phrases_of(lesson.plain, max_words=self._max_words):
            senders = senders_of.of(hash(phrase))
            if senders:
                num_subjects = len(senders) + (lesson.subject not in senders)
                yield Burst(phrase, sum(senders.values()) + 1, num_subjects)

    def _is_up_to_date(self, session: Session, newest: ColumnElement[int]) -> bool:
        # Number and sum are read from the index alone; a change that keeps both keeps the rows.
        count, total = session.execute(select(func.count(), func.sum(newest))).one()
        return count == len(self._lessons) and int(total or 0) == sum(self._lessons)

    def _add_phrases(self, sequence: int, phrases: "array[int]") -> None:
        kept = self._lessons[sequence]
        self._phrases[sequence] = phrases
        self._num_phrases += len(phrases)
        if (senders := self._taught[kept.answer].senders) is not None:
            senders.add(phrases, kept.subject)
        while self._num_phrases > MAX_PHRASES:
            self._drop_phrases(next(iter(self._phrases)))

    def _drop_phrases(self, sequence: int) -> None:
        kept, phrases = self._lessons[sequence], self._phrases.pop(sequence, array("q"))
        self._num_phrases -= len(phrases)
        if (senders := self._taught[kept.answer].senders) is not None:
            senders.remove(phrases, kept.subject)

    def _remove(self, sequence: int) -> None:
        self._drop_phrases(sequence)
        kept = self._lessons.pop(sequence)
        taught = self._taught[kept.answer]
        taught.sequences.remove(sequence)
        if not taught.sequences:
            del self._taught[kept.answer]
        if kept.prompt is not None:
            answers = self._senders_of_answer[kept.prompt]
            if uncount(answers[kept.answer], kept.subject):
                del answers[kept.answer]
            if not answers:
                del self._senders_of_answer[kept.prompt]

    def _load(self, session: Session, sequences: Iterable[int]) -> None:
        columns = (EventRow.sequence, EventRow.payload, EventRow.interaction)
        rows = session.execute(
            select(*columns).where(
                EventRow.sequence.in_(sequences), EventRow.interaction.is_not(None)
            )
        )
        for sequence, payload, said in rows:
            if (lesson := _lesson_of(payload, said)) is not None:
                self.add(sequence, lesson)


def pending(policy: str, cycle_start: int) -> ColumnElement[bool]:
    """Rows of the present cycle: accepted and in no batch, or held out since the last batch."""
    return and_(
        EventRow.policy == policy,
        or_(
            and_(EventRow.status == EventStatus.ACCEPTED, EventRow.batch_id.is_(None)),
            and_(EventRow.status == EventStatus.HOLDOUT, EventRow.sequence > cycle_start),
        ),
    )


def _newest(policy: str, cycle_start: int) -> Select[int]:
    """Sequences of what is pending. In two parts, each of which an index has in order."""
    accepted = EventRow.status == EventStatus.ACCEPTED
    held_out = and_(EventRow.status == EventStatus.HOLDOUT, EventRow.sequence > cycle_start)
    parts = [
        select(EventRow.sequence)
        .where(
            EventRow.policy == policy,
            condition,
            EventRow.batch_id.is_(None),
            EventRow.kind.in_(TEACHING_KINDS),
        )
        .order_by(EventRow.sequence.desc())
        .limit(MAX_LESSONS)
        .subquery()
        for condition in (accepted, held_out)
    ]
    both = union_all(*[select(part.c.sequence) for part in parts]).subquery()
    return select(both.c.sequence).order_by(both.c.sequence.desc()).limit(MAX_LESSONS)


def _lesson_of(payload: str, said: str | None) -> Lesson | None:
    event = FeedbackEvent.model_validate_json(payload)
    interaction = InlineInteraction.model_validate_json(said or "null")
    answer = answer_of(event)
    if answer is None:
        return None
    return Lesson(
        subject=f"{event.source}/{event.subject_id}",
        kind=event.feedback.type,
        plain=normalized(prompt_text(interaction)),
        answer=answer,
    )
