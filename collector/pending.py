"""What corrections and preferences wait to be trained on, indexed by phrase and by cluster.

Two questions in constant time: how many reports, of how many people, share a phrase of the prompt
and teach the same answer; and which answers do others teach for this cluster. The index mirrors the
events table and is brought up to date from it, so a restart, a sealed batch or a rollback needs no
message.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import NamedTuple, TypeVar

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import Session

from collector.clusters import answer_of, phrases_of, prompt_text
from collector.tables import EventRow
from tacit.contracts import EventStatus, FeedbackEvent, InlineInteraction

TEACHING_KINDS = ("correction", "preference")
_LOAD_CHUNK = 500
_K = TypeVar("_K")


class Lesson(NamedTuple):
    """What one event teaches."""

    subject: str
    """``source/subject_id``."""
    kind: str
    cluster: str
    answer: str
    phrases: frozenset[str]


class Burst(NamedTuple):
    """A phrase many reports share and few people send."""

    phrase: str
    num_events: int
    num_subjects: int


class PendingIndex:
    """Lessons by key of their event; not safe to share between threads."""

    def __init__(self) -> None:
        self._lessons: dict[int, Lesson] = {}
        self._subjects_of_phrase: dict[tuple[str, str], Counter[str]] = {}
        self._subjects_of_answer: defaultdict[str, dict[str, Counter[str]]] = defaultdict(dict)

    def refresh(self, session: Session, *, policy: str, cycle_start: int) -> None:
        """Take out what is no longer pending and add what is, as the events table has it."""
        condition = and_(pending(policy, cycle_start), EventRow.kind.in_(TEACHING_KINDS))
        present = set(session.scalars(select(EventRow.sequence).where(condition)))
        for sequence in self._lessons.keys() - present:
            self._remove(sequence)
        missing = sorted(present - self._lessons.keys())
        for start in range(0, len(missing), _LOAD_CHUNK):
            self._load(session, missing[start : start + _LOAD_CHUNK])

    def clear(self) -> None:
        """Forget all, after a transaction whose additions were rolled back."""
        self._lessons.clear()
        self._subjects_of_phrase.clear()
        self._subjects_of_answer.clear()

    def add(self, sequence: int, lesson: Lesson) -> None:
        """Count ``lesson`` as pending."""
        self._lessons[sequence] = lesson
        for phrase in lesson.phrases:
            key = (phrase, lesson.answer)
            self._subjects_of_phrase.setdefault(key, Counter())[lesson.subject] += 1
        if lesson.kind == "correction":
            answers = self._subjects_of_answer[lesson.cluster]
            answers.setdefault(lesson.answer, Counter())[lesson.subject] += 1

    def burst(self, lesson: Lesson, *, max_events: int, min_subject_share: float) -> Burst | None:
        """The worst burst that ``lesson`` would be part of, if any."""
        found = [
            Burst(phrase, subjects.total() + 1, len(subjects.keys() | {lesson.subject}))
            for phrase in lesson.phrases
            if (subjects := self._subjects_of_phrase.get((phrase, lesson.answer)))
        ]
        bursts = [
            b
            for b in found
            if b.num_events > max_events and b.num_subjects < min_subject_share * b.num_events
        ]
        return max(bursts, key=lambda b: (b.num_events / b.num_subjects, b.phrase), default=None)

    def contradicts(self, lesson: Lesson) -> bool:
        """Whether someone else teaches another answer for the cluster."""
        answers = self._subjects_of_answer.get(lesson.cluster, {})
        return lesson.kind == "correction" and any(
            subjects.keys() - {lesson.subject}
            for answer, subjects in answers.items()
            if answer != lesson.answer
        )

    def _remove(self, sequence: int) -> None:
        lesson = self._lessons.pop(sequence)
        for phrase in lesson.phrases:
            _decrement(self._subjects_of_phrase, (phrase, lesson.answer), lesson.subject)
        if lesson.kind == "correction":
            answers = self._subjects_of_answer[lesson.cluster]
            _decrement(answers, lesson.answer, lesson.subject)
            if not answers:
                del self._subjects_of_answer[lesson.cluster]

    def _load(self, session: Session, sequences: Iterable[int]) -> None:
        rows = session.execute(
            select(
                EventRow.sequence, EventRow.payload, EventRow.interaction, EventRow.cluster
            ).where(EventRow.sequence.in_(sequences), EventRow.interaction.is_not(None))
        )
        for sequence, payload, said, cluster in rows:
            event = FeedbackEvent.model_validate_json(payload)
            interaction = InlineInteraction.model_validate_json(said or "null")
            if lesson := lesson_of(event, prompt_text(interaction), cluster=cluster):
                self.add(sequence, lesson)


def lesson_of(event: FeedbackEvent, prompt: str, *, cluster: str) -> Lesson | None:
    """What ``event`` teaches about ``prompt``; None if it teaches no answer."""
    answer = answer_of(event)
    if answer is None:
        return None
    return Lesson(
        subject=f"{event.source}/{event.subject_id}",
        kind=event.feedback.type,
        cluster=cluster,
        answer=answer,
        phrases=phrases_of(prompt),
    )


def pending(policy: str, cycle_start: int) -> ColumnElement[bool]:
    """Rows of the present cycle: accepted and in no batch, or held out since the last batch."""
    return and_(
        EventRow.policy == policy,
        or_(
            and_(EventRow.status == EventStatus.ACCEPTED, EventRow.batch_id.is_(None)),
            and_(EventRow.status == EventStatus.HOLDOUT, EventRow.sequence > cycle_start),
        ),
    )


def _decrement(counters: dict[_K, Counter[str]], key: _K, subject: str) -> None:
    subjects = counters[key]
    subjects[subject] -= 1
    if not subjects[subject]:
        del subjects[subject]
    if not subjects:
        del counters[key]
