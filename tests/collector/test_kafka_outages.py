"""Whatever happens to Kafka while Tacit runs, nothing acknowledged is lost and nothing stalls."""

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from collector.consume import Consumer
from collector.ingest import feedback_topic
from collector.streams import StreamRecord
from collector.streams.kafka import KafkaStream
from collector.tables import DeadLetterRow, EventRow, ScreeningCounterRow
from tacit.config import KafkaSettings, Settings, load_settings
from tacit.database import Database
from tacit.errors import TooLargeError, UnavailableError
from tests.builders import event, user
from tests.collector.brokers import Broker

pytestmark = pytest.mark.kafka
IMPATIENT = {"bootstrap_timeout_s": 2, "delivery_timeout_s": 4, "request_timeout_s": 3}


@pytest.fixture
def open_stream(kafka_address: str) -> Iterator[Callable[..., KafkaStream]]:
    """Opens streams on the shared broker; keyword arguments are settings."""
    opened: list[KafkaStream] = []

    def build(*, partition_refresh_s: float = 30.0, **fields: Any) -> KafkaStream:
        settings = KafkaSettings(bootstrap_servers=kafka_address, **fields)
        opened.append(KafkaStream(settings, partition_refresh_s=partition_refresh_s))
        return opened[-1]

    yield build
    for stream in opened:
        stream.close()


@pytest.fixture
def admin(kafka_address: str) -> Iterator[Any]:
    """A client that changes topics."""
    from kafka import KafkaAdminClient

    client = KafkaAdminClient(bootstrap_servers=kafka_address)
    yield client
    client.close()


def _settings(home: Path, address: str) -> Settings:
    kafka = {"bootstrap_servers": address, **IMPATIENT}
    screening = {
        "holdout_share": 0,
        "max_events_per_cluster": 10_000,
        "max_events_per_subject": 10_000,
    }
    collector = {"stream": "kafka", "kafka": kafka, "screening": screening}
    return load_settings(home=home, collector=collector)


def _record(number: int) -> tuple[str, bytes]:
    word = "".join(chr(97 + int(digit)) for digit in str(number))
    said = {"prompt": user(f"prompt {word}"), "completion": "billing"}
    sent = event(f"e-{number}", subject_id=f"u-{number % 50}", interaction=said)
    return sent.subject_id, sent.model_dump_json().encode()


def _append_until_acknowledged(stream: KafkaStream, topic: str, numbers: range) -> int:
    """Send each event as a product does; how often the stream was unavailable."""
    num_refused = 0
    for number in numbers:
        while True:
            try:
                stream.append(topic, [_record(number)])
                break
            except UnavailableError:
                num_refused += 1
    return num_refused


def _screened(database: Database) -> Counter[str]:
    with database.reader() as session:
        return Counter(session.scalars(select(EventRow.event_id)))


def _wait(done: Callable[[], bool], *, timeout_s: float = 120.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not done() and time.monotonic() < deadline:
        time.sleep(0.05)
    return done()


@pytest.fixture
def screening(sqlite_database: Database) -> Iterator[Callable[[KafkaStream, Settings], None]]:
    """Runs consumers in threads until the test ends."""
    stop, threads = threading.Event(), []

    def start(stream: KafkaStream, settings: Settings) -> None:
        consumer = Consumer(sqlite_database, stream, settings)
        threads.append(threading.Thread(target=consumer.run, args=(stop,)))
        threads[-1].start()

    yield start
    stop.set()
    for thread in threads:
        thread.join(60)


@pytest.mark.slow
def test_broker_killed_under_load_loses_none_and_doubles_none(
    make_broker: Callable[..., Broker],
    tmp_path: Path,
    sqlite_database: Database,
    screening: Callable[[KafkaStream, Settings], None],
) -> None:
    broker = make_broker()
    settings = _settings(tmp_path, broker.address)
    sending, reading = (KafkaStream(settings.collector.kafka) for _ in range(2))
    topic, refused = feedback_topic(settings), []
    screening(reading, settings)
    parts = [range(start, 900, 3) for start in range(3)]

    def send(part: range) -> None:
        refused.append(_append_until_acknowledged(sending, topic, part))

    senders = [threading.Thread(target=send, args=(part,)) for part in parts]
    for sender in senders:
        sender.start()
    assert _wait(lambda: len(_screened(sqlite_database)) > 100)
    broker.kill()
    assert _wait(lambda: _refuses(reading, topic))
    broker.start()
    for sender in senders:
        sender.join(120)
    assert _wait(lambda: len(_screened(sqlite_database)) == 900)
    assert _screened(sqlite_database) == Counter(f"e-{number}" for number in range(900))
    with sqlite_database.reader() as session:
        assert session.scalars(select(DeadLetterRow)).all() == []
    assert len(refused) == 3
    assert sum(refused) >= 1
    for stream in (sending, reading):
        stream.close()


def _refuses(stream: KafkaStream, topic: str) -> bool:
    try:
        stream.end_offsets(topic)
    except UnavailableError:
        return True
    return False


@pytest.mark.slow
def test_cluster_that_comes_after_tacit_needs_no_restart_of_tacit(
    tmp_path: Path,
    sqlite_database: Database,
    screening: Callable[[KafkaStream, Settings], None],
) -> None:
    broker = Broker(tmp_path / "late")
    settings = _settings(tmp_path, broker.address)
    stream = KafkaStream(settings.collector.kafka)
    screening(stream, settings)
    topic = feedback_topic(settings)
    with pytest.raises(UnavailableError, match=broker.address):
        stream.append(topic, [_record(0)])
    with pytest.raises(UnavailableError, match=broker.address):
        stream.end_offsets(topic)
    broker.start()
    _append_until_acknowledged(stream, topic, range(20))
    assert _wait(lambda: len(_screened(sqlite_database)) == 20)
    stream.close()
    broker.remove()


def _read_until(
    stream: KafkaStream, topic: str, wanted: bytes, positions: Mapping[int, int] | None = None
) -> list[StreamRecord]:
    """What is read up to the record whose value is ``wanted``, over errors in between."""
    at, found = dict(positions or {}), []
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            records = stream.read(topic, at, limit=100, timeout_s=0.1)
        except UnavailableError:
            continue
        found += records
        at |= {r.partition: r.offset + 1 for r in records}
        if any(r.value == wanted for r in records):
            return found
    raise AssertionError(f"no {wanted!r} among {len(found)} records")


def test_topic_that_was_deleted_is_made_again_and_read_from_its_start(
    open_stream: Callable[..., KafkaStream],
    admin: Any,
    topic: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stream = open_stream(num_partitions=1, **IMPATIENT)
    stream.append(topic, [("u", b"%d" % number) for number in range(5)])
    assert len(stream.read(topic, {}, limit=100, timeout_s=0.0)) == 5
    admin.delete_topics([topic])
    for _ in range(5):
        try:
            stream.append(topic, [("u", b"anew")])
            break
        except UnavailableError:
            continue
    found = _read_until(stream, topic, b"anew", {0: 5})
    assert [r.value for r in found] == [b"anew"]
    assert "made anew" in caplog.text
    assert stream.num_lost[topic] == 0


def test_partitions_that_are_added_are_read_too(
    open_stream: Callable[..., KafkaStream], admin: Any, kafka_address: str, topic: str
) -> None:
    from kafka import KafkaProducer

    stream = open_stream(num_partitions=1, partition_refresh_s=0.3)
    stream.append(topic, [("u", b"first")])
    (first,) = stream.read(topic, {}, limit=10, timeout_s=0.0)
    admin.create_partitions({topic: 3})
    producer = KafkaProducer(bootstrap_servers=kafka_address, metadata_max_age_ms=200)
    _wait(lambda: len(producer.partitions_for(topic)) == 3)
    producer.send(topic, b"in the new one", partition=2).get(timeout=20)
    producer.close()
    (found,) = _read_until(stream, topic, b"in the new one", {0: first.offset + 1})
    assert found.partition == 2
    assert stream.end_offsets(topic) == {0: 1, 1: 0, 2: 1}


def test_what_aborted_transactions_leave_behind_stalls_no_reader(
    open_stream: Callable[..., KafkaStream], kafka_address: str, topic: str
) -> None:
    from kafka import KafkaProducer

    stream = open_stream(num_partitions=1)
    stream.append(topic, [("u", b"before")])
    producer = KafkaProducer(bootstrap_servers=kafka_address, transactional_id=topic)
    producer.init_transactions()
    for _ in range(3):
        producer.begin_transaction()
        producer.send(topic, key=b"u", value=b"aborted").get(timeout=20)
        producer.abort_transaction()
    producer.close()
    for reader in (stream, open_stream()):  # one with a consumer under way, and a new one
        started = time.monotonic()
        assert reader.read(topic, {0: 1}, limit=10, timeout_s=0.0) == []
        assert time.monotonic() - started < 5.0
    stream.append(topic, [("u", b"after")])
    assert [r.value for r in _read_until(stream, topic, b"after")] == [b"before", b"after"]
    assert stream.end_offsets(topic)[0] > 6


def test_records_deleted_before_they_were_read_are_counted_and_skipped(
    open_stream: Callable[..., KafkaStream],
    admin: Any,
    topic: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from kafka import TopicPartition

    stream = open_stream(num_partitions=2)
    stream.append(topic, [(f"u-{number}", b"%d" % number) for number in range(60)])
    whole = stream.read(topic, {}, limit=100, timeout_s=0.0)
    while len(whole) < 60:
        at = {p: max(r.offset for r in whole if r.partition == p) + 1 for p in (0, 1)}
        whole += stream.read(topic, at, limit=100, timeout_s=0.0)
    admin.delete_records({TopicPartition(topic, 0): 20})
    caplog.set_level(logging.ERROR)
    expected = {r.value for r in whole if r.partition == 1 or r.offset >= 20}
    found: list[StreamRecord] = []
    at = {0: 5}
    while records := stream.read(topic, at, limit=7, timeout_s=0.0):
        found += records
        at |= {r.partition: r.offset + 1 for r in records}
    assert {r.value for r in found} == expected
    assert len(found) == len(expected)
    assert stream.num_lost[topic] == 15
    assert "up to 15 records are lost" in caplog.text


def test_a_log_that_was_emptied_is_reported_once_not_at_every_read(
    open_stream: Callable[..., KafkaStream],
    admin: Any,
    topic: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from kafka import TopicPartition

    stream = open_stream(num_partitions=1)
    stream.append(topic, [("u", b"%d" % number) for number in range(10)])
    admin.delete_records({TopicPartition(topic, 0): 10})
    for _ in range(4):
        assert stream.read(topic, {0: 3}, limit=10, timeout_s=0.0) == []
    stream.append(topic, [("u", b"new")])
    assert [r.value for r in stream.read(topic, {0: 3}, limit=10, timeout_s=0.0)] == [b"new"]
    assert stream.num_lost[topic] == 7
    assert caplog.text.count("are lost") == 1


def test_screening_goes_on_behind_a_gap(
    open_stream: Callable[..., KafkaStream],
    admin: Any,
    topic: str,
    tmp_path: Path,
    sqlite_database: Database,
) -> None:
    from kafka import TopicPartition

    stream = open_stream(num_partitions=1)
    settings = load_settings(home=tmp_path, collector={"topic_prefix": topic})
    name = feedback_topic(settings)
    stream.append(name, [_record(number) for number in range(10)])
    assert Consumer(sqlite_database, stream, settings).drain() == 10
    stream.append(name, [_record(number) for number in range(10, 30)])
    admin.delete_records({TopicPartition(name, 0): 25})
    reader = open_stream()  # the other one may have fetched ahead
    consumer = Consumer(sqlite_database, reader, settings)
    assert consumer.drain() == 5
    assert consumer.drain() == 0
    assert set(_screened(sqlite_database)) == {f"e-{n}" for n in [*range(10), *range(25, 30)]}
    assert reader.num_lost[name] == 15
    with sqlite_database.reader() as session:
        counted = session.execute(
            select(ScreeningCounterRow.status, ScreeningCounterRow.num_events)
        ).all()
    assert ("lost", 15) in [tuple(row) for row in counted]


def test_topic_with_a_smaller_limit_says_so_instead_of_asking_to_try_again(
    open_stream: Callable[..., KafkaStream], admin: Any, topic: str
) -> None:
    admin.create_topics(
        {topic: {"num_partitions": 1, "configs": {"max.message.bytes": "2000"}}},
        wait_for_metadata=True,
    )
    stream = open_stream()
    with pytest.raises(TooLargeError, match=r"max\.message\.bytes"):
        stream.append(topic, [("u", json.dumps("x" * 5_000).encode())])
    stream.append(topic, [("u", b"small")])
    assert [r.value for r in _read_until(stream, topic, b"small")] == [b"small"]


def test_record_too_large_is_refused_before_any_is_sent(
    open_stream: Callable[..., KafkaStream], topic: str
) -> None:
    stream = open_stream(max_record_bytes=100)
    with pytest.raises(TooLargeError, match="max_record_bytes"):
        stream.append(topic, [("u", b"small"), ("u", b"x" * 101)])
    assert set(stream.end_offsets(topic).values()) == {0}
    stream.append(topic, [("u", b"x" * 100)])
    assert sum(stream.end_offsets(topic).values()) == 1
