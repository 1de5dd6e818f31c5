"""Ingestion: what the feedback API does with events before it says 202.

    events ─▶ known? ─▶ append to the stream (durable) ─▶ receipts ─▶ answer
                │
                └─ same id: same body → duplicate, other body → conflict

One thread takes all requests that wait at one moment through these steps together, so that they
share one sync to disk and one write of receipts. Where all are new, as nearly always, writing the
receipts is what shows it, and they are committed once the append is.

So no receipt stands before its append: a crash between the two means the caller gets no answer and
sends again, and the screening consumer (``collector/consume.py``) drops the second copy by its key.
So an answered event is always in the stream, and never counts twice. From there:

    stream ─▶ consume.py ─▶ redaction/ ─▶ screening/ ─▶ events table (store.py) ─▶ trainer
"""

from collections.abc import Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Literal, NamedTuple, Self

from collector.grouping import Grouping
from collector.parse import body_of, require_admissible
from collector.receipts import body_hash, open_receipts
from collector.streams import Stream
from tacit.config import Settings
from tacit.contracts import FeedbackEvent
from tacit.database import Database
from tacit.errors import TooLargeError

Outcome = Literal["queued", "duplicate", "conflict"]
"""``duplicate``: the same body was acknowledged before. ``conflict``: another body was."""


class Receipt(NamedTuple):
    """What became of one event that was sent."""

    event_id: str
    status: Outcome


class Prepared(NamedTuple):
    """An event that was checked, in the form in which it goes into the stream."""

    event_id: str
    event_key: str
    stream_key: str
    body: bytes
    body_hash: str
    """As ``collector.receipts.body_hash`` makes it."""


class Ingestor:
    """Makes events durable; safe to share between threads. A context manager, which closes it."""

    def __init__(self, database: Database, stream: Stream, settings: Settings) -> None:
        self._stream = stream
        self.receipts = open_receipts(settings, database)
        self.settings = settings
        self.topic = feedback_topic(settings)
        self.requests: Grouping[Prepared, Outcome] = Grouping(self._accept, name="tacit-ingest")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def accept(self, events: Sequence[FeedbackEvent]) -> list[Receipt]:
        """Make ``events`` durable, all or none, and say of each what became of it, in order.

        Raises InvalidInputError for an event this service cannot take, and UnavailableError when
        the stream or the database refuses: then nothing is acknowledged.
        """
        outcomes = self.requests.ask([prepare(event, self.settings) for event in events])
        return [
            Receipt(event.event_id, outcome)
            for event, outcome in zip(events, outcomes, strict=True)
        ]

    async def accept_prepared(self, events: Sequence[Prepared]) -> Sequence[Outcome]:
        """As ``accept``, for events that were prepared, without blocking the event loop."""
        return await self.requests.ask_async(events)

    def close(self) -> None:
        """Let what waits be taken, then stop. Further events are refused as unavailable."""
        self.requests.close()
        self.receipts.close()

    def _accept(self, events: Sequence[Prepared]) -> list[Outcome]:
        known: dict[str, str] = {}
        while True:
            fresh: dict[str, Prepared] = {}
            for event in events:
                if event.event_key not in known:
                    fresh.setdefault(event.event_key, event)
            hashes = {key: event.body_hash for key, event in fresh.items()}
            if not fresh or self.receipts.write_new(hashes, partial(self._append, fresh)):
                return _outcomes(events, known=known | hashes, fresh=set(fresh))
            known = self.receipts.lookup([event.event_key for event in events])

    def _append(self, fresh: Mapping[str, Prepared]) -> None:
        # Keyed by subject, so that the feedback of one person keeps its order.
        self._stream.append(self.topic, [(e.stream_key, e.body) for e in fresh.values()])


def prepare(event: FeedbackEvent, settings: Settings) -> Prepared:
    """``event`` as it goes into the stream.

    Raises InvalidInputError or TooLargeError if it may not.
    """
    require_admissible(event, settings)
    body, digest = body_of(event)
    if len(body) > settings.collector.max_event_bytes:
        raise TooLargeError(
            f"an event of at most {settings.collector.max_event_bytes} bytes",
            got=f"{len(body)} bytes",
            mend="Send a shorter conversation, or raise collector.max_event_bytes.",
        )
    stream_key = f"{event.source}/{event.subject_id}"
    return Prepared(event.event_id, event.event_key, stream_key, body, body_hash(digest))


def feedback_topic(settings: Settings) -> str:
    """Topic of feedback events."""
    return f"{settings.collector.topic_prefix}.feedback"


def interactions_topic(settings: Settings) -> str:
    """Topic of recorded interactions."""
    return f"{settings.collector.topic_prefix}.interactions"


def _outcomes(
    events: Sequence[Prepared], *, known: dict[str, str], fresh: set[str]
) -> list[Outcome]:
    if len(fresh) == len(events):
        # What is new everywhere can only differ by a rival's body under the same key.
        return ["queued" if known[e.event_key] == e.body_hash else "conflict" for e in events]
    outcomes: list[Outcome] = []
    for event in events:
        key = event.event_key
        if known[key] != event.body_hash:
            outcomes.append("conflict")
        elif key in fresh:
            fresh.discard(key)
            outcomes.append("queued")
        else:
            outcomes.append("duplicate")
    return outcomes
