"""The screening consumer: reads the stream and writes what became of each record, exactly once.

One transaction a chunk holds the rows *and* the stream positions, and a position moves only if it
still is what was read. So a crash at any point leaves the chunk unread, and of two consumers that
read the same chunk one is rolled back.

    read interactions ─▶ redact ─▶ interactions table ─▶ re-screen what was held for them
    read feedback ─▶ parse ─▶ dedup ─▶ redact ─▶ join ─▶ screen ─▶ events table
                      └─▶ dead_letters, with payload and reason
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from collector.ingest import feedback_topic, interactions_topic
from collector.positions import Overtaken, advance, lock_screening
from collector.screening.interactions import Recorded, read_interactions, write_interactions
from collector.screening.writer import FeedbackWriter
from collector.streams import Stream, StreamRecord
from collector.tables import StreamPositionRow
from collector.triage.dead_letters import DeadLetterPurge
from tacit.config import Settings
from tacit.contracts import utc_now
from tacit.database import Database
from tacit.errors import UnavailableError

logger = logging.getLogger(__name__)

CHUNK = 500
_WAIT_S = 0.25
_RETRY_S = 1.0
_STAND_BY_S = 1.0


class Consumer:
    """Drains the stream into the database; used by one thread."""

    def __init__(
        self,
        database: Database,
        stream: Stream,
        settings: Settings,
        *,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._stream = stream
        self._clock = clock
        self._feedback_topic = feedback_topic(settings)
        self._interactions_topic = interactions_topic(settings)
        self._writer = FeedbackWriter(settings)
        self._purge = DeadLetterPurge(database, settings.collector)
        self._stop = threading.Event()
        self._lost: Counter[str] = Counter()

    def run(self, stop: threading.Event) -> None:
        """Screen what comes until ``stop`` is set; waits out a stream or database that is away."""
        self._stop = stop
        while not stop.is_set():
            try:
                self._step(wait_s=_WAIT_S)
                self._purge.now_and_then(self._clock())
            except UnavailableError as error:
                logger.warning("screening waits: %s", error)
                stop.wait(_RETRY_S)
            except Exception:
                # The edge of a thread: were it to end, events would be acknowledged and no more.
                logger.exception("screening failed; it tries again")
                stop.wait(_RETRY_S)

    def drain(self) -> int:
        """Screen all that is in the stream now; how many records that was.

        Raises UnavailableError.
        """
        num_handled = 0
        while handled := self._step(wait_s=0.0):
            num_handled += handled
        return num_handled

    def _step(self, *, wait_s: float) -> int:
        # Interactions first: feedback that came right behind its interaction is then never held.
        num_interactions = self._chunk(self._interactions_topic, wait_s=0.0)
        wait_s = 0.0 if num_interactions else wait_s
        num_feedback = self._chunk(self._feedback_topic, wait_s=wait_s)
        self._writer.expire_held(self._database, now=self._clock())
        return num_interactions + num_feedback

    def _chunk(self, topic: str, *, wait_s: float) -> int:
        while True:
            positions = self._positions(topic)
            records = self._stream.read(topic, positions, limit=CHUNK, timeout_s=wait_s)
            if not records:
                return 0
            try:
                self._commit(topic, positions, records)
                return len(records)
            except Overtaken:
                logger.info("another consumer was faster on %s", topic)
                self._stand_by(topic)
                if self._stop.is_set():
                    return 0

    def _stand_by(self, topic: str) -> None:
        """Leave the work to the faster consumer for as long as it moves the positions."""
        now = self._positions(topic)
        while not self._stop.wait(_STAND_BY_S):
            before, now = now, self._positions(topic)
            if now == before:
                return

    def _commit(
        self, topic: str, positions: dict[int, int], records: Sequence[StreamRecord]
    ) -> None:
        # Parsing and redacting take longer than writing, and the transaction holds the write lock.
        write = self._prepare(topic, records)
        lost = self._stream.num_lost.get(topic, 0)
        self._writer.count_lost(lost - self._lost[topic])
        try:
            with self._database.session() as session:
                self._write(session, topic, positions, records, write)
        except BaseException:
            self._writer.forget()
            raise
        self._lost[topic] = lost

    def _prepare(
        self, topic: str, records: Sequence[StreamRecord]
    ) -> Callable[[Session, datetime], None]:
        """Read ``records``; what is returned writes what they say."""
        if topic == self._feedback_topic:
            sent = self._writer.read(records)
            return lambda session, now: self._writer.write(session, sent, now=now)
        recorded = read_interactions(records)
        return lambda session, now: self._write_interactions(session, recorded, now)

    def _write(
        self,
        session: Session,
        topic: str,
        positions: dict[int, int],
        records: Sequence[StreamRecord],
        write: Callable[[Session, datetime], None],
    ) -> None:
        lock_screening(session)
        advance(session, topic, positions, records)
        write(session, self._clock())

    def _write_interactions(
        self, session: Session, recorded: Sequence[Recorded], now: datetime
    ) -> None:
        arrived = write_interactions(
            session, recorded, now=now, on_dead_letter=self._writer.count_dead_letter
        )
        self._writer.rescreen(session, arrived)

    def _positions(self, topic: str) -> dict[int, int]:
        with self._database.reader() as session:
            rows = session.scalars(
                select(StreamPositionRow).where(StreamPositionRow.topic == topic)
            )
            return {row.partition: row.next_offset for row in rows}
