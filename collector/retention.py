"""Retention: the embedded stream and the receipts forget what was screened some time ago.

The stream holds events as they were sent, personal data and all; the events table has them
redacted. Once screened, a record is only kept for ``collector.stream_retention_s``, so that a
database restored from a backup that is not older can read it again. Kafka's brokers have their own
retention.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from sqlalchemy import select

from collector.ingest import feedback_topic, interactions_topic
from collector.receipts import ReceiptBook
from collector.streams import Stream
from collector.streams.embedded import EmbeddedStream
from collector.tables import StreamPositionRow
from tacit.config import Settings
from tacit.database import Database
from tacit.errors import UnavailableError

logger = logging.getLogger(__name__)

PERIOD_S = 60.0


class _Mark(NamedTuple):
    at_s: float
    ends: dict[tuple[str, int], int]
    """Next offset of each topic and partition at that moment."""


class Retention:
    """Forgets, every minute, what was in the stream a while ago and is screened by now."""

    def __init__(
        self,
        database: Database,
        stream: Stream,
        receipts: ReceiptBook,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._stream = stream
        self._receipts = receipts
        self._retention_s = settings.collector.stream_retention_s
        self._topics = (feedback_topic(settings), interactions_topic(settings))
        self._clock = clock
        self._marks: deque[_Mark] = deque()

    def run(self, stop: threading.Event) -> None:
        """Do so until ``stop`` is set; waits out a stream or database that is away."""
        while not stop.wait(PERIOD_S):
            try:
                self.forget()
            except UnavailableError as error:
                logger.warning("nothing is forgotten for now: %s", error)
            except Exception:
                # The edge of a thread: were it to end, the stream would keep all that people sent.
                logger.exception("forgetting failed; it tries again")

    def forget(self) -> None:
        """Forget what may go now. Raises UnavailableError."""
        mark = self._ripe_mark()
        if mark is not None:
            self._trim(mark)
            # An event acknowledged before the mark was in the stream by then, and is screened.
            self._receipts.prune(before_s=int(mark.at_s))
        ends = {
            (topic, partition): end
            for topic in self._topics
            for partition, end in self._stream.end_offsets(topic).items()
        }
        # Receipts are written behind the append, and their clock has whole seconds.
        self._marks.append(_Mark(self._clock() - 2.0, ends))

    def _ripe_mark(self) -> _Mark | None:
        """The newest mark that is old enough and behind what is screened."""
        positions = self._positions()
        ripe = None
        while self._marks and self._is_ripe(self._marks[0], positions):
            ripe = self._marks.popleft()
        return ripe

    def _is_ripe(self, mark: _Mark, positions: dict[tuple[str, int], int]) -> bool:
        old_enough = mark.at_s <= self._clock() - self._retention_s
        return old_enough and all(positions.get(p, 0) >= end for p, end in mark.ends.items())

    def _trim(self, mark: _Mark) -> None:
        if not isinstance(self._stream, EmbeddedStream):
            return
        for (topic, _), end in mark.ends.items():
            num_trimmed = self._stream.trim(topic, before=end)
            logger.info("%s: forgot %d records that are screened", topic, num_trimmed)

    def _positions(self) -> dict[tuple[str, int], int]:
        with self._database.reader() as session:
            rows = session.scalars(select(StreamPositionRow))
            return {(row.topic, row.partition): row.next_offset for row in rows}
