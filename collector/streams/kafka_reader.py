"""Reads all partitions of one Kafka topic from positions that its caller keeps.

No consumer group: a position moves in the database, in the transaction that writes what was read.
Used by one thread at a time.
"""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from kafka import TopicPartition
from kafka.errors import KafkaTimeoutError, OffsetOutOfRangeError

from collector.streams.base import StreamRecord

logger = logging.getLogger(__name__)

_POLL_MS = 50


class _Gap(NamedTuple):
    """A position that the log no longer has, and where reading goes on instead."""

    asked: int
    start: int


class TopicReader:
    """One consumer on one topic.

    ``ends`` asks the cluster for the next offset of each partition, on a connection of its own: on
    the consumer's it would wait behind a fetch. ``on_lost`` is told how many records are gone.
    """

    def __init__(
        self,
        topic: str,
        consumer: Any,
        *,
        ends: Callable[[], Mapping[int, int]],
        on_lost: Callable[[int], None],
        refresh_s: float,
        catch_up_s: float,
    ) -> None:
        self._topic = topic
        self._consumer = consumer
        self._ends = ends
        self._on_lost = on_lost
        self._refresh_s = refresh_s
        self._catch_up_s = catch_up_s
        self._refresh_at = 0.0
        self._next: dict[int, int] = {}
        self._gaps: dict[int, _Gap] = {}

    def read(
        self, positions: Mapping[int, int], *, limit: int, timeout_s: float
    ) -> list[StreamRecord]:
        """See Stream. Raises KafkaError."""
        self._assign()
        self._seek_all(positions)
        try:
            polled = self._poll(limit=limit, timeout_s=timeout_s)
        except OffsetOutOfRangeError as error:
            self._skip(error)
            self._seek_all(positions)
            polled = self._poll(limit=limit, timeout_s=timeout_s)
        records = [_record(row) for rows in polled.values() for row in rows]
        for record in records:
            self._next[record.partition] = record.offset + 1
        return records

    def close(self) -> None:
        """Give the connection back."""
        self._consumer.close(autocommit=False)

    def _poll(self, *, limit: int, timeout_s: float) -> Mapping[Any, list[Any]]:
        polled = self._consumer.poll(timeout_ms=int(timeout_s * 1000), max_records=limit)
        give_up_at = time.monotonic() + self._catch_up_s
        # A fetch takes a round trip, so one poll finding nothing does not mean there is nothing.
        while not polled and self._is_elsewhere():
            if time.monotonic() > give_up_at:
                raise KafkaTimeoutError(f"no records of {self._topic} in {self._catch_up_s:g} s")
            polled = self._consumer.poll(timeout_ms=_POLL_MS, max_records=limit)
        found: Mapping[Any, list[Any]] = polled
        return found

    def _is_elsewhere(self) -> bool:
        """Whether any partition is not at its end: before it, or past it in a log made anew."""
        # The consumer's own position is past what transactions left behind without a record.
        ends = self._ends()
        return any(
            self._consumer.position(self._place(partition)) != ends.get(partition, 0)
            for partition in self._next
        )

    def _assign(self) -> None:
        if time.monotonic() < self._refresh_at:
            return
        found = self._consumer.partitions_for_topic(self._topic) or set()
        if found != set(self._next):
            self._consumer.assign([self._place(partition) for partition in sorted(found)])
            self._next = dict.fromkeys(found, -1)
        if found:
            self._refresh_at = time.monotonic() + self._refresh_s

    def _seek_all(self, positions: Mapping[int, int]) -> None:
        for partition, next_offset in self._next.items():
            wanted = positions.get(partition, 0)
            gap = self._gaps.get(partition)
            if gap is not None and gap.asked == wanted:
                wanted = gap.start
            # Seeking throws away what was fetched ahead, so only where the caller went elsewhere.
            if next_offset != wanted:
                self._consumer.seek(self._place(partition), wanted)
                self._next[partition] = wanted

    def _skip(self, error: OffsetOutOfRangeError) -> None:
        """Go on at the start of the log: waiting for records that are gone would be for ever."""
        for place, asked in error.args[0].items():
            start = self._consumer.beginning_offsets([place])[place]
            self._gaps[place.partition] = _Gap(asked, start)
            if start > asked:
                logger.error(
                    "%s/%s begins at %s and %s was to be read next: up to %s records are lost, "
                    "deleted before they were screened. Raise the topic's retention",
                    *(self._topic, place.partition, start, asked, start - asked),
                )
                self._on_lost(start - asked)
            else:
                logger.error(
                    "%s/%s ends before %s, which was to be read next: the topic was made anew or "
                    "lost its end. Reading it from %s; what was screened before is dropped",
                    *(self._topic, place.partition, asked, start),
                )
        # What other partitions had fetched may be gone with the error.
        self._next = dict.fromkeys(self._next, -1)

    def _place(self, partition: int) -> TopicPartition:
        return TopicPartition(self._topic, partition)


def _record(row: Any) -> StreamRecord:
    # Products may leave out the key, and the value too: a tombstone of compaction.
    key = (row.key or b"").decode(errors="replace")
    return StreamRecord(row.topic, row.partition, row.offset, key, row.value or b"")
