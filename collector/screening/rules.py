"""Screening: which events may teach, which are measured, which stand aside, and with what weight.

In: redacted events joined to their interactions, in order. Out: one judgement each, with a
machine-readable reason. Screening limits what a few people can do; it proves nothing about content.

Rules, first match wins: clock_skew, duplicate_feedback, contradiction, phrase_burst, subject_cap,
cluster_cap, subject_total_cap, cluster_total_cap; then the hold-out split. A cycle is what was
accepted and is in no batch yet. Held-out events pass the same rules: whoever fills the hold-out set
decides what counts as better. Quorums are in ``collector/screening/quorum.py``.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy.orm import Session

from collector.reasons import Reason
from collector.screening.arrival import Arrival
from collector.screening.clusters import is_holdout
from collector.screening.history import History, cycle_start_of
from collector.screening.pending import Lesson, PendingIndex
from tacit.config import ScreeningSettings
from tacit.contracts import EventStatus

PROVEN_EVENTS = 10
"""Trained events after which a subject has full weight."""
WORDS_PER_TOKEN = 2
"""At most; normalising makes two words of ``don't``, which is one token in some vocabularies."""


class Judgement(NamedTuple):
    """What becomes of an event."""

    status: EventStatus
    reason: Reason | None = None
    detail: str | None = None
    weight: float = 1.0


class Screener:
    """Judges events of one policy line; used by one thread.

    ``begin`` a chunk, ``prepare`` what will be judged, then ``judge`` each in order.
    """

    def __init__(self, settings: ScreeningSettings, *, policy: str, max_length: int) -> None:
        """``max_length``: tokens of an example in training; what is cut off there cannot teach."""
        self._settings = settings
        self._policy = policy
        self._pending = PendingIndex(max_words=WORDS_PER_TOKEN * max_length)
        self._history = History(policy=policy)
        self._cycle_start = -1

    def begin(self, session: Session) -> None:
        """Start with a chunk: what others did since the last one counts."""
        if not self._settings.enabled:
            return
        self._cycle_start = cycle_start_of(session, policy=self._policy)
        self._pending.refresh(session, policy=self._policy, cycle_start=self._cycle_start)
        self._history.begin()

    def prepare(self, session: Session, arrivals: Sequence[Arrival]) -> None:
        """Read what judging ``arrivals`` needs, in a handful of queries."""
        if self._settings.enabled and arrivals:
            self._history.read(session, arrivals, cycle_start=self._cycle_start)

    def forget(self) -> None:
        """Drop what was learnt from a transaction that was rolled back."""
        self._pending.clear()

    def judge(self, arrival: Arrival, *, sequence: int) -> Judgement:
        """What becomes of ``arrival``, which gets the row numbered ``sequence``."""
        if not self._settings.enabled:
            return Judgement(self._split(arrival))
        lesson = arrival.lesson()
        refusal = self._refusal(arrival, lesson)
        if refusal is not None:
            return refusal
        self._history.add(arrival)
        if lesson is not None:
            self._pending.add(sequence, lesson)
        return Judgement(self._split(arrival), weight=self.trust(arrival))

    def refusal(self, arrival: Arrival) -> Judgement | None:
        """Why ``arrival`` would stand aside if it were judged now; None if it would not."""
        return self._refusal(arrival, arrival.lesson()) if self._settings.enabled else None

    def trust(self, arrival: Arrival) -> float:
        """What the subject has earned, from the weight of the unproven to 1."""
        unproven = self._settings.unproven_subject_weight
        proven = min(self._history.trained[arrival.subject] / PROVEN_EVENTS, 1.0)
        return unproven + (1.0 - unproven) * proven

    def _refusal(self, arrival: Arrival, lesson: Lesson | None) -> Judgement | None:
        refusal = (
            self._clock_skew(arrival)
            or self._duplicate(arrival)
            or (self._contradiction(lesson) if lesson else None)
            or (self._phrase_burst(lesson) if lesson else None)
            or self._caps(arrival)
        )
        # A person may release it: then it weighs what the subject had earned.
        return None if refusal is None else refusal._replace(weight=self.trust(arrival))

    def _clock_skew(self, arrival: Arrival) -> Judgement | None:
        ahead = arrival.event.occurred_at - arrival.received_at
        if ahead <= timedelta(seconds=self._settings.max_clock_skew_s):
            return None
        return _quarantine(
            Reason.CLOCK_SKEW, f"occurred {ahead.total_seconds():.0f} s in the future"
        )

    def _duplicate(self, arrival: Arrival) -> Judgement | None:
        if not self._history.has_said(arrival):
            return None
        kind = arrival.event.feedback.type
        return _quarantine(
            Reason.DUPLICATE_FEEDBACK, f"the subject's second {kind} on one interaction"
        )

    def _contradiction(self, lesson: Lesson) -> Judgement | None:
        if not self._pending.contradicts(lesson):
            return None
        return _quarantine(
            Reason.CONTRADICTION,
            "another subject's pending correction gives this prompt another answer",
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
            Reason.PHRASE_BURST,
            f"{burst.num_events} reports of {burst.num_subjects} subjects share "
            f"{burst.phrase[:200]!r} and the answer",
        )

    def _caps(self, arrival: Arrival) -> Judgement | None:
        if not arrival.trains:
            return None
        limits, history = self._settings, self._history
        subject, cluster = arrival.subject, arrival.cluster
        for reason, number, limit, span in (
            (
                Reason.SUBJECT_CAP,
                history.of_subject[subject],
                limits.max_events_per_subject,
                "cycle",
            ),
            (
                Reason.CLUSTER_CAP,
                history.of_cluster[cluster],
                limits.max_events_per_cluster,
                "cycle",
            ),
            (
                Reason.SUBJECT_TOTAL_CAP,
                history.total_of_subject[subject],
                limits.max_total_events_per_subject,
                "line",
            ),
            (
                Reason.CLUSTER_TOTAL_CAP,
                history.total_of_cluster[cluster],
                limits.max_total_events_per_cluster,
                "line",
            ),
        ):
            if number >= limit:
                return _quarantine(reason, f"more than {limit} a {span}")
        return None

    def _split(self, arrival: Arrival) -> EventStatus:
        # Every kind of feedback on a held-out cluster stays out of training, or the prompt itself
        # would straddle the split.
        held_out = is_holdout(arrival.cluster, share=self._settings.holdout_share)
        return EventStatus.HOLDOUT if held_out else EventStatus.ACCEPTED


def _quarantine(reason: Reason, detail: str) -> Judgement:
    return Judgement(EventStatus.QUARANTINED, reason, detail)
