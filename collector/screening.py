"""Screening: which events may teach, which are measured, which stand aside, and with what weight.

In: redacted events joined to their interactions, in order. Out: one judgement each, with a
machine-readable reason. Screening limits what a few people can do; it proves nothing about content.

Rules, first match wins: clock_skew, duplicate_feedback, contradiction, phrase_burst, subject_cap,
cluster_cap; then the hold-out split. A cycle is what was accepted and is in no batch yet. Held-out
events pass the same rules: whoever fills the hold-out set decides what counts as better.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from collector.clusters import cluster_of, is_holdout, prompt_text
from collector.pending import Lesson, PendingIndex, lesson_of, pending
from collector.store import TRAINABLE_KINDS
from collector.tables import EventRow
from tacit.config import ScreeningSettings
from tacit.contracts import EventStatus, FeedbackEvent, InlineInteraction, Outcome

PROVEN_EVENTS = 10
"""Trained events after which a subject has full weight."""


@dataclass(frozen=True)
class Arrival:
    """A redacted event with what it is about."""

    event: FeedbackEvent
    interaction: InlineInteraction
    interaction_id: str | None
    received_at: datetime
    prompt: str
    cluster: str

    @property
    def subject(self) -> str:
        """``source/subject_id``: each source picks its own subject ids."""
        return f"{self.event.source}/{self.event.subject_id}"


class Judgement(NamedTuple):
    """What becomes of an event."""

    status: EventStatus
    reason: str | None = None
    detail: str | None = None
    weight: float = 1.0


class _Said(NamedTuple):
    """Who said which kind of thing about what; said twice it weighs once."""

    subject: str
    kind: str
    about: str


def arrive(
    event: FeedbackEvent,
    interaction: InlineInteraction,
    *,
    interaction_id: str | None,
    received_at: datetime,
) -> Arrival:
    """An Arrival with the cluster of its prompt."""
    prompt = prompt_text(interaction)
    return Arrival(event, interaction, interaction_id, received_at, prompt, cluster_of(prompt))


class Screener:
    """Judges events of one policy line; used by one thread.

    Call ``prepare`` with what will be judged, then ``judge`` for each in order.
    """

    def __init__(self, settings: ScreeningSettings, *, policy: str) -> None:
        self._settings = settings
        self._policy = policy
        self._pending = PendingIndex()
        self._of_subject: Counter[str] = Counter()
        self._of_cluster: Counter[str] = Counter()
        self._trained: Counter[str] = Counter()
        self._said: set[_Said] = set()

    def prepare(self, session: Session, arrivals: Sequence[Arrival]) -> None:
        """Read what judging ``arrivals`` needs, in a handful of queries."""
        if not self._settings.enabled or not arrivals:
            return
        subject_ids = {arrival.event.subject_id for arrival in arrivals}
        cycle_start = self._cycle_start(session)
        self._pending.refresh(session, policy=self._policy, cycle_start=cycle_start)
        self._count_pending(session, subject_ids, {a.cluster for a in arrivals}, cycle_start)
        self._count_trained(session, subject_ids)
        self._read_said(session, arrivals, subject_ids)

    def forget(self) -> None:
        """Drop what was learnt from a transaction that was rolled back."""
        self._pending.clear()

    def judge(self, arrival: Arrival, *, sequence: int) -> Judgement:
        """What becomes of ``arrival``, which gets the row numbered ``sequence``."""
        if not self._settings.enabled:
            return Judgement(self._split(arrival))
        lesson = lesson_of(arrival.event, arrival.prompt, cluster=arrival.cluster)
        refusal = self._refusal(arrival, lesson)
        if refusal is not None:
            return refusal
        self._count(arrival, lesson, sequence)
        return Judgement(self._split(arrival), weight=self._weight(arrival.subject))

    def _refusal(self, arrival: Arrival, lesson: Lesson | None) -> Judgement | None:
        return (
            self._clock_skew(arrival)
            or self._duplicate(arrival)
            or (self._contradiction(lesson) if lesson else None)
            or (self._phrase_burst(lesson) if lesson else None)
            or self._caps(arrival)
        )

    def _clock_skew(self, arrival: Arrival) -> Judgement | None:
        ahead = arrival.event.occurred_at - arrival.received_at
        if ahead <= timedelta(seconds=self._settings.max_clock_skew_s):
            return None
        return _quarantine("clock_skew", f"occurred {ahead.total_seconds():.0f} s in the future")

    def _duplicate(self, arrival: Arrival) -> Judgement | None:
        if _said_by(arrival) not in self._said:
            return None
        kind = arrival.event.feedback.type
        return _quarantine("duplicate_feedback", f"the subject's second {kind} on one interaction")

    def _contradiction(self, lesson: Lesson) -> Judgement | None:
        if not self._pending.contradicts(lesson):
            return None
        return _quarantine(
            "contradiction", "another subject's pending correction gives this prompt another answer"
        )

    def _phrase_burst(self, lesson: Lesson) -> Judgement | None:
        burst = self._pending.burst(
            lesson,
            max_events=self._settings.max_events_per_phrase,
            min_subject_share=self._settings.min_subjects_per_phrase_share,
        )
        if burst is None:
            return None
        return _quarantine(
            "phrase_burst",
            f"{burst.num_events} reports of {burst.num_subjects} subjects share "
            f"{burst.phrase[:200]!r} and the answer",
        )

    def _caps(self, arrival: Arrival) -> Judgement | None:
        if not _trains(arrival):
            return None
        limits = self._settings
        if self._of_subject[arrival.subject] >= limits.max_events_per_subject:
            return _quarantine("subject_cap", f"more than {limits.max_events_per_subject} a cycle")
        if self._of_cluster[arrival.cluster] >= limits.max_events_per_cluster:
            return _quarantine("cluster_cap", f"more than {limits.max_events_per_cluster} a cycle")
        return None

    def _count(self, arrival: Arrival, lesson: Lesson | None, sequence: int) -> None:
        self._said.add(_said_by(arrival))
        if _trains(arrival):
            self._of_subject[arrival.subject] += 1
            self._of_cluster[arrival.cluster] += 1
        if lesson is not None:
            self._pending.add(sequence, lesson)

    def _split(self, arrival: Arrival) -> EventStatus:
        # Every kind of feedback on a held-out cluster stays out of training, or the prompt itself
        # would straddle the split.
        held_out = is_holdout(arrival.cluster, share=self._settings.holdout_share)
        return EventStatus.HOLDOUT if held_out else EventStatus.ACCEPTED

    def _weight(self, subject: str) -> float:
        unproven = self._settings.unproven_subject_weight
        proven = min(self._trained[subject] / PROVEN_EVENTS, 1.0)
        return unproven + (1.0 - unproven) * proven

    def _cycle_start(self, session: Session) -> int:
        newest_trained = (
            select(EventRow.sequence)
            .where(EventRow.policy == self._policy, EventRow.batch_id.is_not(None))
            .order_by(EventRow.sequence.desc())
            .limit(1)
        )
        found = session.scalar(newest_trained)
        return -1 if found is None else found

    def _count_pending(
        self, session: Session, subject_ids: set[str], clusters: set[str], cycle_start: int
    ) -> None:
        counted = and_(pending(self._policy, cycle_start), EventRow.kind.in_(TRAINABLE_KINDS))
        by_subject = (
            select(EventRow.source, EventRow.subject_id, func.count())
            .where(counted, EventRow.subject_id.in_(subject_ids))
            .group_by(EventRow.source, EventRow.subject_id)
        )
        by_cluster = (
            select(EventRow.cluster, func.count())
            .where(counted, EventRow.cluster.in_(clusters))
            .group_by(EventRow.cluster)
        )
        self._of_subject = Counter({f"{s}/{u}": n for s, u, n in session.execute(by_subject)})
        self._of_cluster = Counter({row.cluster: row[1] for row in session.execute(by_cluster)})

    def _count_trained(self, session: Session, subject_ids: set[str]) -> None:
        trained = (
            select(EventRow.source, EventRow.subject_id, func.count())
            .where(
                EventRow.policy == self._policy,
                EventRow.subject_id.in_(subject_ids),
                EventRow.status == EventStatus.ACCEPTED,
                EventRow.batch_id.is_not(None),
            )
            .group_by(EventRow.source, EventRow.subject_id)
        )
        self._trained = Counter({f"{s}/{u}": n for s, u, n in session.execute(trained)})

    def _read_said(
        self, session: Session, arrivals: Sequence[Arrival], subject_ids: set[str]
    ) -> None:
        ids = {a.interaction_id for a in arrivals if a.interaction_id is not None}
        clusters = {a.cluster for a in arrivals if a.interaction_id is None}
        inline = and_(EventRow.interaction_id.is_(None), EventRow.cluster.in_(clusters))
        query = select(EventRow.payload, EventRow.interaction, EventRow.interaction_id).where(
            EventRow.subject_id.in_(subject_ids),
            EventRow.status.in_((EventStatus.ACCEPTED, EventStatus.HOLDOUT)),
            or_(EventRow.interaction_id.in_(ids), inline),
        )
        self._said = {
            _said(FeedbackEvent.model_validate_json(payload), interaction_id or interaction or "")
            for payload, interaction, interaction_id in session.execute(query)
        }


def _said_by(arrival: Arrival) -> _Said:
    about = arrival.interaction_id or arrival.interaction.model_dump_json()
    return _said(arrival.event, about)


def _said(event: FeedbackEvent, about: str) -> _Said:
    feedback = event.feedback
    kind = f"outcome:{feedback.metric}" if isinstance(feedback, Outcome) else feedback.type
    return _Said(f"{event.source}/{event.subject_id}", kind, about)


def _trains(arrival: Arrival) -> bool:
    # Critiques are in no batch yet, so they would fill a cap for ever.
    return arrival.event.feedback.type in TRAINABLE_KINDS


def _quarantine(reason: str, detail: str) -> Judgement:
    return Judgement(EventStatus.QUARANTINED, reason, detail)
