"""FeedbackWriter: feedback records of one chunk on their way into the events table.

Parsed and redacted before the transaction, which holds a lock that others wait for (``sent.py``).
Inside: drop what is there already, join, screen, write; and screen again what was held once its
interaction has come, or once enough people have said the same.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.orm import Session

from collector.reasons import Reason
from collector.screening.arrival import Arrival
from collector.screening.counters import LOST, ScreeningCounts
from collector.screening.event_rows import (
    Row,
    arrival_of,
    held_for,
    insert_rows,
    judged,
    new_row,
    next_sequence,
    update_rows,
)
from collector.screening.holds import HoldExpiry, HoldLimits
from collector.screening.join import Joined, Joiner, with_clusters
from collector.screening.near_duplicates import ClusterIndex
from collector.screening.quorum import Quorum
from collector.screening.rules import Judgement, Screener
from collector.screening.sent import Sent, bury_inadmissible, new_ones, read
from collector.streams import StreamRecord
from tacit.config import Settings
from tacit.contracts import EventStatus, Feedback, FeedbackEvent, Interaction, Outcome, Rating
from tacit.database import Database

_INADMISSIBLE = Judgement(EventStatus.DEAD_LETTER, Reason.INADMISSIBLE, weight=0.0)
_HOLD_FULL = Judgement(
    EventStatus.QUARANTINED, Reason.HOLD_FULL, "too many events of its sender are held already"
)


class FeedbackWriter:
    """Writes events and what became of them; used by one thread."""

    def __init__(self, settings: Settings) -> None:
        screening, policy = settings.collector.screening, settings.policy
        self._settings = settings
        self._shares = screening.enabled
        self._screener = Screener(screening, policy=policy, max_length=settings.trainer.max_length)
        self._quorum = Quorum(screening, policy=policy)
        self._limits = HoldLimits(screening, policy=policy)
        self._expiry = HoldExpiry(screening, policy=policy)
        self._clusters = ClusterIndex(policy=policy, similarity=screening.near_duplicate_similarity)
        self._counts = ScreeningCounts(policy=policy)
        self._rows: list[Row] = []
        self._sequence = 0

    def forget(self) -> None:
        """The transaction was rolled back."""
        self._rows = []
        self._screener.forget()
        self._clusters.forget()
        self._counts.forget()

    def read(self, records: Sequence[StreamRecord]) -> list[Sent]:
        """Parse and redact ``records``; needs no database."""
        return [read(record, self._settings) for record in records]

    def write(self, session: Session, sent: Sequence[Sent], *, now: datetime) -> None:
        """Write each new event of ``sent`` with what became of it."""
        fresh = new_ones(session, sent, counts=self._counts, now=now)
        if fresh:
            self._write_new(session, fresh, now=now)
        self._end(session)

    def rescreen(self, session: Session, arrived: Sequence[Interaction]) -> None:
        """Screen again what was held for the interactions that have ``arrived``."""
        rows = held_for(session, arrived)
        if rows:
            events = [FeedbackEvent.model_validate_json(row.payload) for row in rows]
            self._begin(session, events)
            joiner = Joiner(session, events)
            joined = [
                joiner.join(event, received_at=row.received_at)
                for event, row in zip(events, rows, strict=True)
            ]
            for row, each in zip(rows, self._prepare(session, joined), strict=True):
                if each.judgement is None or each.judgement.status != EventStatus.HELD:
                    judgement = self._decide(session, each, is_new=False)
                    update_rows(session, [(row.event_key, self._judged(each, judgement))])
        self._end(session)

    def count_lost(self, number: int) -> None:
        """``number`` records were deleted before they were read; told with the next chunk."""
        self._counts.add(LOST, number=number)

    def count_dead_letter(self, reason: Reason) -> None:
        """Count a record of the other topic that went to dead letter in this transaction."""
        self._counts.add_dead_letter(reason)

    def expire_held(self, database: Database, *, now: datetime) -> None:
        """Quarantine what was held for longer than it may be."""
        self._expiry.expire(database, now=now)

    def _write_new(
        self, session: Session, fresh: Sequence[tuple[Sent, FeedbackEvent]], *, now: datetime
    ) -> None:
        self._begin(session, [event for _, event in fresh])
        admitted = [(s, e) for s, e in fresh if self._admit(session, s, e, now=now)]
        joiner = Joiner(session, [event for _, event in admitted])
        joined = [joiner.join(event, received_at=now) for _, event in admitted]
        joined = self._prepare(session, joined)
        for each, (origin, event) in zip(joined, admitted, strict=True):
            row = new_row(
                event, body_digest=origin.body_digest, reward=self._reward(event.feedback), now=now
            )
            judgement = self._decide(session, each, is_new=True)
            self._rows.append(row | self._judged(each, judgement))

    def _admit(self, session: Session, sent: Sent, event: FeedbackEvent, *, now: datetime) -> bool:
        if sent.refusal is None:
            return True
        bury_inadmissible(session, sent, counts=self._counts, now=now)
        row = new_row(event, body_digest=sent.body_digest, reward=None, now=now)
        joined = Joined(event, event.interaction_id, None, None)
        judgement = _INADMISSIBLE._replace(detail=str(sent.refusal).replace("\x00", "\\0"))
        self._rows.append(
            row | judged(joined, judgement, sequence=self._next(), shares=self._shares)
        )
        return False

    def _begin(self, session: Session, events: Sequence[FeedbackEvent]) -> None:
        self._rows = []
        self._sequence = next_sequence(session)
        self._screener.begin(session)
        self._quorum.begin()
        self._limits.begin(events)

    def _prepare(self, session: Session, joined: Sequence[Joined]) -> list[Joined]:
        found = with_clusters(session, joined, self._clusters)
        arrivals = [each.arrival for each in found if each.arrival is not None]
        self._screener.prepare(session, arrivals)
        self._quorum.read(session, arrivals)
        return found

    def _end(self, session: Session) -> None:
        insert_rows(session, self._rows)
        self._rows = []
        self._counts.write(session)
        session.flush()

    def _decide(self, session: Session, joined: Joined, *, is_new: bool) -> Judgement:
        """What becomes of one event. ``is_new``: it takes a place if it is held."""
        arrival, judgement = joined.arrival, joined.judgement
        if arrival is not None:
            judgement = self._await_quorum(session, arrival) or self._judge(arrival)
        assert judgement is not None
        if judgement.status != EventStatus.HELD:
            return judgement
        if is_new and not self._limits.take(session, joined.event):
            return _HOLD_FULL._replace(weight=judgement.weight)
        if arrival is not None:
            self._quorum.count(arrival, waits=True)
        return judgement

    def _await_quorum(self, session: Session, arrival: Arrival) -> Judgement | None:
        """Held or refused where a quorum is asked for; None if the event is to be judged."""
        if self._quorum.claim_of(arrival) is None:
            return None
        refusal = self._screener.refusal(arrival)
        if refusal is not None:
            return refusal
        missing = self._quorum.missing(arrival)
        if self._quorum.may_complete(arrival):
            self._quorum.count(arrival, waits=False)
            self._release(session, arrival)
        if missing <= 0:
            return None
        detail = f"{missing} more subjects must teach the same"
        return Judgement(
            EventStatus.HELD, Reason.AWAITING_QUORUM, detail, self._screener.trust(arrival)
        )

    def _judge(self, arrival: Arrival) -> Judgement:
        judgement = self._screener.judge(arrival, sequence=self._sequence)
        if judgement.status != EventStatus.QUARANTINED:
            self._quorum.count(arrival, waits=False)
        return judgement

    def _release(self, session: Session, arrival: Arrival) -> None:
        """Judge what waited for the quorum that ``arrival`` completes."""
        insert_rows(session, self._rows)
        self._rows = []
        waited = [
            (row.event_key, arrival_of(row)) for row in self._quorum.release(session, arrival)
        ]
        self._screener.prepare(session, [each for _, each in waited])
        for event_key, each in waited:
            if self._quorum.missing(each) <= 0:
                joined = Joined(each.event, each.interaction_id, each, None)
                update_rows(session, [(event_key, self._judged(joined, self._judge(each)))])
            else:
                self._quorum.count(each, waits=True)

    def _reward(self, feedback: Feedback) -> float | None:
        """How good the completion was, told now: which way a metric counts may change later."""
        if isinstance(feedback, Rating):
            return feedback.normalized()
        if isinstance(feedback, Outcome):
            return self._settings.collector.metrics[feedback.metric].reward(feedback.value)
        return None

    def _judged(self, joined: Joined, judgement: Judgement) -> Row:
        self._counts.add(judgement.status, judgement.reason)
        return judged(joined, judgement, sequence=self._next(), shares=self._shares)

    def _next(self) -> int:
        sequence, self._sequence = self._sequence, self._sequence + 1
        return sequence
