"""The Kafka stream: what grows beyond one machine. Same promises as the embedded one.

Producer: acks of all in-sync replicas and idempotence, keyed so that one subject keeps its order.
Reader: no consumer group; it reads every partition from the positions it is given, committed
records only. User and password come from TACIT_KAFKA_USER and TACIT_KAFKA_PASSWORD.
"""

import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError, TopicAlreadyExistsError

from collector.streams.base import StreamRecord
from tacit.config import KafkaSettings
from tacit.errors import TooLargeError, UnavailableError

_RECORD_OVERHEAD_BYTES = 512
_PARTITION_REFRESH_S = 30.0
_CATCH_UP_S = 10.0
_POLL_MS = 100


class KafkaStream:
    """A Stream on a Kafka cluster; connects on first use and again after an error."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._producer: Any = None
        self._consumers: dict[str, _TopicReader] = {}
        self._known_topics: set[str] = set()
        self._producer_lock = threading.Lock()
        self._consumer_lock = threading.Lock()
        self._closed = False

    def append(self, topic: str, records: Sequence[tuple[str, bytes]]) -> None:
        """See Stream. Returns once all in-sync replicas have all of ``records``."""
        self._refuse_too_large(records)
        producer = self._open_producer(topic)
        timeout_s = self._settings.delivery_timeout_s
        try:
            sent = [producer.send(topic, key=key.encode(), value=value) for key, value in records]
            producer.flush(timeout=timeout_s)
            for future in sent:
                future.get(timeout=timeout_s)
        except KafkaError as error:
            self._drop_producer(producer)
            raise self._unavailable(error) from error

    def read(
        self, topic: str, positions: Mapping[int, int], *, limit: int, timeout_s: float
    ) -> list[StreamRecord]:
        """See Stream."""
        with self._consumer_lock:
            try:
                return self._reader(topic).read(positions, limit=limit, timeout_s=timeout_s)
            except KafkaError as error:
                reader = self._consumers.pop(topic, None)
                if reader is not None:
                    reader.close()
                raise self._unavailable(error) from error

    def close(self) -> None:
        """See Stream."""
        self._closed = True
        with self._producer_lock:
            if self._producer is not None:
                self._producer.close(timeout=self._settings.delivery_timeout_s)
            self._producer = None
        with self._consumer_lock:
            for reader in self._consumers.values():
                reader.close()
            self._consumers.clear()

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

    def _open_producer(self, topic: str) -> Any:
        with self._producer_lock:
            if self._closed:
                raise UnavailableError("an open stream", got="one that was closed")
            try:
                self._ensure_topic(topic)
                if self._producer is None:
                    self._producer = KafkaProducer(**self._producer_options())
            except KafkaError as error:
                raise self._unavailable(error) from error
            return self._producer

    def _drop_producer(self, producer: Any) -> None:
        # After a failed delivery the sequence numbers of an idempotent producer may be spent.
        with self._producer_lock:
            if self._producer is producer:
                self._producer = None
        producer.close(timeout=0)

    def _reader(self, topic: str) -> "_TopicReader":
        if self._closed:
            raise UnavailableError("an open stream", got="one that was closed")
        if topic not in self._consumers:
            with self._producer_lock:
                self._ensure_topic(topic)
            self._consumers[topic] = _TopicReader(topic, KafkaConsumer(**self._consumer_options()))
        return self._consumers[topic]

    def _ensure_topic(self, topic: str) -> None:
        if topic in self._known_topics:
            return
        admin = KafkaAdminClient(**self._connection_options())
        options = {
            "num_partitions": self._settings.num_partitions,
            "replication_factor": self._settings.replication_factor,
        }
        try:
            admin.create_topics({topic: options}, wait_for_metadata=True)
        except TopicAlreadyExistsError:
            pass
        finally:
            admin.close()
        self._known_topics.add(topic)

    def _connection_options(self) -> dict[str, Any]:
        options: dict[str, Any] = {
            "bootstrap_servers": self._settings.bootstrap_servers.split(","),
            "security_protocol": self._settings.security_protocol,
            "bootstrap_timeout_ms": int(self._settings.bootstrap_timeout_s * 1000),
        }
        if self._settings.security_protocol.startswith("SASL"):
            options["sasl_mechanism"] = self._settings.sasl_mechanism
            options["sasl_plain_username"] = os.environ.get("TACIT_KAFKA_USER", "")
            options["sasl_plain_password"] = os.environ.get("TACIT_KAFKA_PASSWORD", "")
        return options

    def _producer_options(self) -> dict[str, Any]:
        timeout_ms = int(self._settings.delivery_timeout_s * 1000)
        return self._connection_options() | {
            # Named, because any other acks turns idempotence off without a word.
            "acks": "all",
            "enable_idempotence": True,
            "linger_ms": 2,
            "max_block_ms": timeout_ms,
            "delivery_timeout_ms": timeout_ms,
            "request_timeout_ms": max(timeout_ms // 2, 1),
            "max_request_size": self._settings.max_record_bytes + _RECORD_OVERHEAD_BYTES,
        }

    def _consumer_options(self) -> dict[str, Any]:
        return self._connection_options() | {
            # All three defaults would lose or invent records here.
            "enable_auto_commit": False,
            "auto_offset_reset": "earliest",
            "isolation_level": "read_committed",
            "group_id": None,
            "max_partition_fetch_bytes": self._settings.max_record_bytes + _RECORD_OVERHEAD_BYTES,
        }

    def _unavailable(self, error: KafkaError) -> UnavailableError:
        return UnavailableError(
            f"a Kafka cluster that answers at {self._settings.bootstrap_servers} "
            f"over {self._settings.security_protocol}",
            got=f"{type(error).__name__}: {error}",
            mend="Check collector.kafka.bootstrap_servers (the address), security_protocol, and "
            "the credentials TACIT_KAFKA_USER and TACIT_KAFKA_PASSWORD: a wrong password looks "
            "like a cluster that is away.",
        )


class _TopicReader:
    """All partitions of one topic, read from positions its caller keeps."""

    def __init__(self, topic: str, consumer: Any) -> None:
        self._topic = topic
        self._consumer = consumer
        self._refresh_at = 0.0
        self._next: dict[int, int] = {}

    def read(
        self, positions: Mapping[int, int], *, limit: int, timeout_s: float
    ) -> list[StreamRecord]:
        self._assign()
        for partition in self._next:
            self._seek(partition, positions.get(partition, 0))
        polled = self._poll(limit=limit, timeout_s=timeout_s)
        records = [
            StreamRecord(
                r.topic,
                r.partition,
                r.offset,
                (r.key or b"").decode(errors="replace"),
                r.value or b"",
            )
            for rows in polled.values()
            for r in rows
        ]
        for record in records:
            self._next[record.partition] = record.offset + 1
        return records

    def _poll(self, *, limit: int, timeout_s: float) -> dict[Any, list[Any]]:
        polled = self._consumer.poll(timeout_ms=int(timeout_s * 1000), max_records=limit)
        give_up_at = time.monotonic() + _CATCH_UP_S
        # A fetch takes a round trip, so one poll finding nothing does not mean there is nothing.
        while not polled and self._is_behind() and time.monotonic() < give_up_at:
            polled = self._consumer.poll(timeout_ms=_POLL_MS, max_records=limit)
        return dict(polled)

    def _is_behind(self) -> bool:
        partitions = self._consumer.assignment()
        ends = self._consumer.end_offsets(partitions) if partitions else {}
        return any(self._consumer.position(place) < end for place, end in ends.items())

    def close(self) -> None:
        self._consumer.close(autocommit=False)

    def _assign(self) -> None:
        if time.monotonic() < self._refresh_at:
            return
        found = self._consumer.partitions_for_topic(self._topic) or set()
        if found - set(self._next):
            self._consumer.assign([TopicPartition(self._topic, number) for number in sorted(found)])
            self._next = dict.fromkeys(found, -1)
        if found:
            self._refresh_at = time.monotonic() + _PARTITION_REFRESH_S

    def _seek(self, partition: int, offset: int) -> None:
        # Seeking throws away what was fetched ahead, so only where the caller went elsewhere.
        if self._next[partition] != offset:
            self._consumer.seek(TopicPartition(self._topic, partition), offset)
            self._next[partition] = offset
