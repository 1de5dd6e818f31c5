"""The Kafka stream: what grows beyond one machine. Same promises as the embedded one.

Producer: acks of all in-sync replicas and idempotence, keyed so that one subject keeps its order.
Reader: every partition from the positions it is given, committed records only. Whatever fails is
closed and opened again by the next call, so a cluster that comes back needs no restart here.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from kafka import TopicPartition
from kafka.errors import (
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
)

from collector.streams.base import StreamRecord
from collector.streams.kafka_connection import FailTogether, KafkaConnection, close_producer
from collector.streams.kafka_reader import TopicReader
from tacit.config import KafkaSettings
from tacit.errors import TooLargeError, UnavailableError

logger = logging.getLogger(__name__)

_PARTITION_REFRESH_S = 30.0
_GRACE_S = 1.0
"""The producer gives up by itself, with its reason; waiting ends a little later."""


class KafkaStream:
    """A Stream on a Kafka cluster; connects on first use and again after an error.

    ``partition_refresh_s``: how often it looks for partitions that were added. Raises ConfigError
    if credentials are missing or a TLS file cannot be used.
    """

    def __init__(
        self, settings: KafkaSettings, *, partition_refresh_s: float = _PARTITION_REFRESH_S
    ) -> None:
        self._settings = settings
        self._connection = KafkaConnection(settings)
        self._partition_refresh_s = partition_refresh_s
        self._producer: Any = None
        self._asker: Any = None
        self._readers: dict[str, TopicReader] = {}
        self._known_topics: set[str] = set()
        self._producing = FailTogether()
        self._asking = FailTogether()
        self._reading = threading.Lock()
        self._closings: list[threading.Thread] = []
        self._closed = False
        self.num_lost: Counter[str] = Counter()

    def append(self, topic: str, records: Sequence[tuple[str, bytes]]) -> None:
        """See Stream. Returns once all in-sync replicas have all of ``records``."""
        self._refuse_too_large(records)
        producer = self._open_producer(topic)
        try:
            # No flush: it would also wait for what other threads have sent meanwhile.
            sent = [producer.send(topic, key=key.encode(), value=value) for key, value in records]
            deadline = time.monotonic() + self._settings.delivery_timeout_s + _GRACE_S
            for future in sent:
                future.get(timeout=max(deadline - time.monotonic(), 0.0))
        except (MessageSizeTooLargeError, RecordListTooLargeError) as error:
            self._drop_producer(producer, topic)
            raise TooLargeError(
                "records that the broker takes",
                got=f"{type(error).__name__}",
                mend="Raise the broker's message.max.bytes or the topic's max.message.bytes to "
                "collector.kafka.max_record_bytes and a little more.",
            ) from error
        except KafkaError as error:
            self._drop_producer(producer, topic)
            raise self._connection.unavailable(error) from error

    def read(
        self, topic: str, positions: Mapping[int, int], *, limit: int, timeout_s: float
    ) -> list[StreamRecord]:
        """See Stream. Positions that the log no longer has are read from its start, loudly."""
        with self._reading:
            try:
                reader = self._open_reader(topic)
                return reader.read(positions, limit=limit, timeout_s=timeout_s)
            except UnavailableError:
                self._drop_reader(topic)
                raise
            except KafkaError as error:
                self._drop_reader(topic)
                raise self._connection.unavailable(error) from error

    def end_offsets(self, topic: str) -> dict[int, int]:
        """See Stream. Records of a transaction under way are not counted yet."""
        self._ensure_topic(topic)
        with self._asking.opening():
            self._require_open()
            try:
                return self._ask_ends(topic)
            except KafkaError as error:
                self._known_topics.discard(topic)
                asker, self._asker = self._asker, None
                _close_quietly(asker)
                raise self._connection.unavailable(error) from error

    def close(self) -> None:
        """See Stream."""
        self._closed = True
        with self._producing.lock:
            producer, self._producer = self._producer, None
        if producer is not None:
            self._close_producer(producer)
        for closing in self._closings:
            closing.join()
        with self._reading:
            for topic in list(self._readers):
                self._drop_reader(topic)
        with self._asking.lock:
            asker, self._asker = self._asker, None
            _close_quietly(asker)

    def _refuse_too_large(self, records: Sequence[tuple[str, bytes]]) -> None:
        limit = self._settings.max_record_bytes
        for key, value in records:
            if len(value) > limit:
                raise TooLargeError(
                    f"records of at most {limit} bytes",
                    got=f"{len(value)} bytes of {key}",
                    mend="Raise collector.kafka.max_record_bytes and the broker's "
                    "message.max.bytes, or send less.",
                )

    def _require_open(self) -> None:
        if self._closed:
            raise UnavailableError("an open stream", got="one that was closed")

    def _open_producer(self, topic: str) -> Any:
        with self._producing.opening():
            self._require_open()
            self._ensure_topic(topic)
            if self._producer is None:
                self._producer = self._connection.producer()
            return self._producer

    def _drop_producer(self, producer: Any, topic: str) -> None:
        # After a failed delivery the sequence numbers of an idempotent producer may be spent.
        with self._producing.lock:
            if self._producer is not producer:
                return
            self._producer = None
            self._known_topics.discard(topic)
            closing = threading.Thread(
                target=self._close_producer, args=(producer,), name="kafka-closing", daemon=True
            )
            self._closings = [thread for thread in self._closings if thread.is_alive()] + [closing]
            closing.start()

    def _close_producer(self, producer: Any) -> None:
        # Other threads may be waiting for what it holds.
        close_producer(producer, timeout_s=self._settings.delivery_timeout_s + _GRACE_S)

    def _open_reader(self, topic: str) -> TopicReader:
        self._require_open()
        self._ensure_topic(topic)
        if topic not in self._readers:
            self._readers[topic] = TopicReader(
                topic,
                self._connection.consumer(metadata_max_age_s=self._partition_refresh_s),
                ends=lambda: self.end_offsets(topic),
                on_lost=lambda num_lost: self.num_lost.update({topic: num_lost}),
                refresh_s=self._partition_refresh_s,
                catch_up_s=self._settings.request_timeout_s,
            )
        return self._readers[topic]

    def _drop_reader(self, topic: str) -> None:
        self._known_topics.discard(topic)
        reader = self._readers.pop(topic, None)
        _close_quietly(reader)

    def _ask_ends(self, topic: str) -> dict[int, int]:
        if self._asker is None:
            self._asker = self._connection.consumer(metadata_max_age_s=self._partition_refresh_s)
        partitions = self._asker.partitions_for_topic(topic)
        if not partitions:
            raise UnknownTopicOrPartitionError(topic)
        ends = self._asker.end_offsets([TopicPartition(topic, number) for number in partitions])
        return {place.partition: end for place, end in sorted(ends.items())}

    def _ensure_topic(self, topic: str) -> None:
        if topic in self._known_topics:
            return
        with self._producing.opening():
            self._require_open()
            admin = self._connection.admin()
            try:
                self._create_topic(admin, topic)
            except KafkaError as error:
                raise self._connection.unavailable(error) from error
            finally:
                admin.close()
            self._known_topics.add(topic)

    def _create_topic(self, admin: Any, topic: str) -> None:
        # Looked for first: who may only write and read a topic may not make one.
        if topic in admin.list_topics():
            return
        options = {
            "num_partitions": self._settings.num_partitions,
            "replication_factor": self._settings.replication_factor,
        }
        with suppress(TopicAlreadyExistsError):
            admin.create_topics({topic: options}, wait_for_metadata=True)
            logger.info("made topic %s with %s", topic, options)


def _close_quietly(client: Any) -> None:
    if client is not None:
        with suppress(KafkaError):
            client.close()
