"""Ingestion: what the feedback API does with events before it says 202.

    events ─▶ known? ─▶ append to the stream (durable) ─▶ receipts ─▶ answer
                │
                └─ same id: same body → duplicate, other body → conflict

The receipt is written after the append: a crash between the two means the caller gets no answer and
sends again, and the screening consumer (``collector/consume.py``) drops the second copy by its key.
So an answered event is always in the stream, and never counts twice. From there:

    stream ─▶ consume.py ─▶ redaction.py ─▶ screening.py ─▶ events table (store.py) ─▶ trainer
"""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from sqlalchemy import select

from collector.parse import require_admissible
from collector.streams import Stream
from collector.tables import EventRow, ReceiptRow, insert_missing
from tacit.config import Settings
from tacit.contracts import FeedbackEvent, utc_now
from tacit.database import Database


class Receipt(NamedTuple):
    """What became of one event that was sent."""

    event_id: str
    status: Literal["queued", "duplicate", "conflict"]
    """``duplicate``: the same body was acknowledged before. ``conflict``: another body was."""


class Ingestor:
    """Makes events durable; safe to share between threads."""

    def __init__(self, database: Database, stream: Stream, settings: Settings) -> None:
        self._database = database
        self._stream = stream
        self.settings = settings
        self.topic = feedback_topic(settings)

    def accept(self, events: Sequence[FeedbackEvent]) -> list[Receipt]:
        """Make ``events`` durable, all or none, and say of each what became of it, in order.

        Raises InvalidInputError for an event this service cannot take, and UnavailableError when
        the stream or the database refuses: then nothing is acknowledged.
        """
        for event in events:
            require_admissible(event, self.settings)
        digests = [event.digest() for event in events]
        known = self._known_digests(event.event_key for event in events)
        fresh: dict[str, tuple[FeedbackEvent, str]] = {}
        for event, digest in zip(events, digests, strict=True):
            if event.event_key not in known:
                fresh.setdefault(event.event_key, (event, digest))
        self._append([event for event, _ in fresh.values()])
        written = self._write_receipts({key: digest for key, (_, digest) in fresh.items()})
        known |= written
        return _receipts(events, digests, known=known, fresh=set(fresh))

    def _known_digests(self, keys: Iterable[str]) -> dict[str, str]:
        """Body digests of events acknowledged or screened before, by event key."""
        wanted = list(set(keys))
        known: dict[str, str] = {}
        with self._database.reader() as session:
            for table in (EventRow, ReceiptRow):
                rows = session.execute(
                    select(table.event_key, table.body_digest).where(table.event_key.in_(wanted))
                )
                known.update((key, digest) for key, digest in rows)
        return known

    def _append(self, events: Sequence[FeedbackEvent]) -> None:
        # Keyed by subject, so that the feedback of one person keeps its order.
        records = [
            (f"{event.source}/{event.subject_id}", event.model_dump_json().encode())
            for event in events
        ]
        if records:
            self._stream.append(self.topic, records)

    def _write_receipts(self, digests: dict[str, str]) -> dict[str, str]:
        """Write receipts; the digest that now stands for each key, which may be a rival's."""
        if not digests:
            return {}
        moment = utc_now()
        rows = [
            {"event_key": key, "body_digest": digest, "received_at": moment}
            for key, digest in digests.items()
        ]
        with self._database.session() as session:
            insert_missing(session, ReceiptRow, rows)
            found = session.execute(
                select(ReceiptRow.event_key, ReceiptRow.body_digest).where(
                    ReceiptRow.event_key.in_(digests)
                )
            )
            return {row.event_key: row.body_digest for row in found}


def feedback_topic(settings: Settings) -> str:
    """Topic of feedback events."""
    return f"{settings.collector.topic_prefix}.feedback"


def interactions_topic(settings: Settings) -> str:
    """Topic of recorded interactions."""
    return f"{settings.collector.topic_prefix}.interactions"


def _receipts(
    events: Sequence[FeedbackEvent],
    digests: Sequence[str],
    *,
    known: dict[str, str],
    fresh: set[str],
) -> list[Receipt]:
    receipts = []
    for event, digest in zip(events, digests, strict=True):
        if known[event.event_key] != digest:
            receipts.append(Receipt(event.event_id, "conflict"))
            continue
        receipts.append(
            Receipt(event.event_id, "queued" if event.event_key in fresh else "duplicate")
        )
        fresh.discard(event.event_key)
    return receipts
