"""What corrections and preferences wait to be trained on, indexed by phrase and by prompt.

Two questions in constant time: how many reports, of how many people, share a phrase of the prompt
and teach the same answer; and which answers do others teach for this prompt. The index mirrors the
newest rows of the events table and is brought up to date from it, so a restart, a sealed batch or a
rollback needs no message.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sqlalchemy import ColumnElement, Select, and_, func, or_, select, union_all
from sqlalchemy.orm import Session

from collector.screening.clusters import (
    answer_of,
    cluster_of_normalized,
    normalized,
    phrases_of,
    prompt_text,
)
from collector.tables import EventRow
from tacit.contracts import EventStatus, FeedbackEvent, InlineInteraction

TEACHING_KINDS = ("correction", "preference")
MAX_LESSONS = 10_000
"""The newest so many are looked at, which bounds memory where nothing is trained for long."""
_LOAD_CHUNK = 500


class Lesson(NamedTuple):
    """What one event teaches."""

    subject: str
    """``source/subject_id``."""
    kind: str
    prompt: str
    """Hash of the normalised prompt."""
    answer: str
    phrases: frozenset[str]


class Burst(NamedTuple):
    """A phrase many reports share and few people send."""

    phrase: str
    num_events: int
    num_subjects: int


class _Kept(NamedTuple):
    """A lesson in the index, without its texts."""

    subject: str
    phrases: tuple[int, ...]
    prompt: str | None
    """None for a preference: it contradicts nothing."""
    answer: int


Senders = dict[str, int]
"""Reports by subject."""


class PendingIndex:
    """Lessons by sequence of their event; not safe to share between threads."""

    def __init__(self) -> None:
        self._lessons: dict[int, _Kept] = {}
        self._senders_of_phrase: dict[int, Senders] = {}
        self._senders_of_answer: dict[str, dict[int, Senders]] = {}

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
        self._lessons.clear()
        self._senders_of_phrase.clear()
        self._senders_of_answer.clear()

    def add(self, sequence: int, lesson: Lesson) -> None:
        """Count ``lesson`` as pending, in place of the oldest if there are too many."""
        kept = _Kept(
            subject=lesson.subject,
            phrases=tuple(hash((phrase, lesson.answer)) for phrase in lesson.phrases),
            prompt=lesson.prompt if lesson.kind == "correction" else None,
            answer=hash(lesson.answer),
        )
        self._lessons[sequence] = kept
        for phrase in kept.phrases:
            _count(self._senders_of_phrase.setdefault(phrase, {}), lesson.subject)
        if kept.prompt is not None:
            answers = self._senders_of_answer.setdefault(kept.prompt, {})
            _count(answers.setdefault(kept.answer, {}), lesson.subject)
        if len(self._lessons) > MAX_LESSONS:
            self._remove(next(iter(self._lessons)))

    def burst(self, lesson: Lesson, *, max_events: int, min_subject_share: float) -> Burst | None:
        """The worst burst that ``lesson`` would be part of, if any."""
        bursts = [
            burst
            for burst in self._shared(lesson)
            if burst.num_events > max_events
            and burst.num_subjects < min_subject_share * burst.num_events
        ]
        return max(bursts, key=lambda b: (b.num_events / b.num_subjects, b.phrase), default=None)

    def contradicts(self, lesson: Lesson) -> bool:
        """Whether someone else teaches another answer for the prompt."""
        answers = self._senders_of_answer.get(lesson.prompt, {})
        return lesson.kind == "correction" and any(
            senders.keys() - {lesson.subject}
            for answer, senders in answers.items()
            if answer != hash(lesson.answer)
        )

    def _shared(self, lesson: Lesson) -> Iterator[Burst]:
        for phrase in lesson.phrases:
            senders = self._senders_of_phrase.get(hash((phrase, lesson.answer)))
            if senders:
                num_subjects = len(senders) + (lesson.subject not in senders)
                yield Burst(phrase, sum(senders.values()) + 1, num_subjects)

    def _is_up_to_date(self, session: Session, newest: ColumnElement[int]) -> bool:
        # Number and sum are read from the index alone; a change that keeps both keeps the rows.
        count, total = session.execute(select(func.count(), func.sum(newest))).one()
        return count == len(self._lessons) and int(total or 0) == sum(self._lessons)

    def _remove(self, sequence: int) -> None:
        kept = self._lessons.pop(sequence)
        for phrase in kept.phrases:
            if _uncount(self._senders_of_phrase[phrase], kept.subject):
                del self._senders_of_phrase[phrase]
        if kept.prompt is not None:
            answers = self._senders_of_answer[kept.prompt]
            if _uncount(answers[kept.answer], kept.subject):
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
    plain = normalized(prompt_text(interaction))
    return Lesson(
        subject=f"{event.source}/{event.subject_id}",
        kind=event.feedback.type,
        prompt=cluster_of_normalized(plain),
        answer=answer,
        phrases=phrases_of(plain),
    )


def _count(senders: Senders, subject: str) -> None:
    senders[subject] = senders.get(subject, 0) + 1


def _uncount(senders: Senders, subject: str) -> bool:
    """Take one away; whether nobody is left."""
    if senders[subject] > 1:
        senders[subject] -= 1
    else:
        del senders[subject]
    return not senders
