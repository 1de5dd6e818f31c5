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

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Literal, NamedTuple

from collector.parse import body_of, require_admissible
from collector.receipts import body_hash, open_receipts
from collector.streams import Stream
from tacit.config import Settings
from tacit.contracts import FeedbackEvent
from tacit.database import Database
from tacit.errors import TooLargeError, UnavailableError

_MAX_GROUP = 4_000
"""Events that go through together; more would make the first of them wait for the last."""


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


class _Asked(NamedTuple):
    events: Sequence[Prepared]
    answer: Callable[[Sequence[Outcome] | BaseException], None]


class Ingestor:
    """Makes events durable; safe to share between threads."""

    def __init__(self, database: Database, stream: Stream, settings: Settings) -> None:
        self._stream = stream
        self.receipts = open_receipts(settings, database)
        self.settings = settings
        self.topic = feedback_topic(settings)
        self._waiting: list[_Asked] = []
        self._changed = threading.Condition()
        self._closed = False
        self._worker: threading.Thread | None = None

    def accept(self, events: Sequence[FeedbackEvent]) -> list[Receipt]:
        """Make ``events`` durable, all or none, and say of each what became of it, in order.

        Raises InvalidInputError for an event this service cannot take, and UnavailableError when
        the stream or the database refuses: then nothing is acknowledged.
        """
        prepared = [prepare(event, self.settings) for event in events]
        done: Future[Sequence[Outcome]] = Future()
        self._ask(_Asked(prepared, lambda outcome: _settle(done, outcome)))
        return [
            Receipt(event.event_id, outcome)
            for event, outcome in zip(events, done.result(), strict=True)
        ]

    async def accept_prepared(self, events: Sequence[Prepared]) -> Sequence[Outcome]:
        """As ``accept``, for events that were prepared, without blocking the event loop."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Sequence[Outcome]] = loop.create_future()

        def answer(outcome: Sequence[Outcome] | BaseException) -> None:
            # A loop that has ended has nobody left to tell, and must not end this thread with it.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(_settle_unless_cancelled, done, outcome)

        self._ask(_Asked(events, answer))
        return await done

    def close(self) -> None:
        """Let what waits be taken, then stop. Further events are refused as unavailable."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._worker is not None:
            self._worker.join()
        self.receipts.close()

    def _ask(self, asked: _Asked) -> None:
        with self._changed:
            if self._closed:
                raise UnavailableError("a service that is up", got="one that is stopping")
            if self._worker is None:
                self._worker = threading.Thread(target=self._run, name="tacit-ingest", daemon=True)
                self._worker.start()
            self._waiting.append(asked)
            self._changed.notify()

    def _run(self) -> None:
        while group := self._take():
            try:
                outcomes = self._accept([event for asked in group for event in asked.events])
            except UnavailableError as error:
                _answer_all(group, error)
            except Exception as error:
                # The edge of a thread: were it to end, every later request would wait for ever.
                self._accept_one_by_one(group, error)
            else:
                _hand_out(group, outcomes)

    def _accept_one_by_one(self, group: Sequence[_Asked], error: Exception) -> None:
        # What is wrong with one request must not be the answer to its neighbours.
        for asked in group:
            try:
                if len(group) == 1:
                    raise error
                asked.answer(self._accept(asked.events))
            except Exception as own:
                asked.answer(own)

    def _take(self) -> list[_Asked]:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            taken, num_events = 0, 0
            for asked in self._waiting:
                num_events += len(asked.events)
                if taken and num_events > _MAX_GROUP:
                    break
                taken += 1
            group, self._waiting = self._waiting[:taken], self._waiting[taken:]
            return group

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


def _hand_out(group: Sequence[_Asked], outcomes: Sequence[Outcome]) -> None:
    start = 0
    for asked in group:
        end = start + len(asked.events)
        asked.answer(outcomes[start:end])
        start = end


def _answer_all(group: Sequence[_Asked], error: BaseException) -> None:
    for asked in group:
        asked.answer(error)


def _settle(
    done: "Future[Sequence[Outcome]] | asyncio.Future[Sequence[Outcome]]",
    outcome: Sequence[Outcome] | BaseException,
) -> None:
    if isinstance(outcome, BaseException):
        done.set_exception(outcome)
    else:
        done.set_result(outcome)


def _settle_unless_cancelled(
    done: "asyncio.Future[Sequence[Outcome]]", outcome: Sequence[Outcome] | BaseException
) -> None:
    # The sender may have gone away; its events are durable all the same.
    if not done.done():
        _settle(done, outcome)
