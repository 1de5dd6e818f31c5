"""What anybody may put on the topic: all of it ends somewhere with a reason, and screening goes on.

The same records on the embedded stream and, produced by a stranger's producer, on Kafka.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from collector.consume import Consumer
from collector.ingest import feedback_topic, interactions_topic
from collector.store import EventStore
from collector.streams import Stream
from collector.streams.embedded import EmbeddedStream
from collector.tables import DeadLetterRow
from tacit.config import Settings, load_settings
from tacit.database import Database
from tests.builders import event, interaction
from tests.collector.conftest import StreamMaker

Produce = Callable[[str, bytes | None, bytes | None], None]
"""Topic, key, value."""

GOOD = event("e-good").model_dump_json().encode()
POISON: dict[str, bytes | None] = {
    "garbage": b"\x00\x01\x02 garbage \xfe",
    "empty": b"",
    "tombstone": None,
    "invalid UTF-8": b'{"event_id": "\xff\xfe"}',
    "a lone surrogate": b'{"event_id": "\\ud800"}',
    "NUL": b'{"event_id": "\\u0000"}',
    "not an object": b"[1, 2, 3]",
    "another shape": b'{"hello": "world"}',
    "not a number": b'{"event_id": NaN}',
    "deep arrays": b"[" * 10_000 + b"]" * 10_000,
    "deep objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "huge integer": b'{"event_id": ' + b"9" * 10_000 + b"}",
    "one megabyte": b'{"event_id": "' + b"x" * 999_000 + b'"}',
    "cut short": GOOD[:-1],
    "two at once": GOOD + GOOD,
}


@pytest.fixture
def stream(open_again: StreamMaker) -> Stream:
    """The stream that the consumer reads."""
    return open_again()


@pytest.fixture
def produce(stream: Stream, request: pytest.FixtureRequest) -> Iterator[Produce]:
    """Puts a record on a topic without asking the collector."""
    if isinstance(stream, EmbeddedStream):
        yield lambda topic, key, value: stream.append(
            topic, [((key or b"").decode(errors="replace"), value or b"")]
        )
        return
    from kafka import KafkaProducer

    address = request.getfixturevalue("kafka_address")
    producer = KafkaProducer(bootstrap_servers=address, max_request_size=2_000_000)

    def send(topic: str, key: bytes | None, value: bytes | None) -> None:
        stream.end_offsets(topic)  # makes the topic
        producer.send(topic, key=key, value=value).get(timeout=20)

    yield send
    producer.close()


@pytest.fixture
def settings(tmp_path: Path, topic: str) -> Settings:
    """Topics of the test's own."""
    screening = {"holdout_share": 0}
    return load_settings(home=tmp_path, collector={"topic_prefix": topic, "screening": screening})


def _dead(database: Database) -> list[tuple[bytes, str]]:
    with database.reader() as session:
        return [(row.payload, row.reason) for row in session.scalars(select(DeadLetterRow))]


@pytest.mark.parametrize("what", POISON)
def test_poison_is_kept_with_its_reason_and_screening_goes_on(
    stream: Stream, produce: Produce, settings: Settings, sqlite_database: Database, what: str
) -> None:
    value = POISON[what]
    for topic in (feedback_topic(settings), interactions_topic(settings)):
        produce(topic, b"k", value)
    produce(feedback_topic(settings), b"k", GOOD)
    consumer = Consumer(sqlite_database, stream, settings)
    assert consumer.drain() == 3
    assert _dead(sqlite_database) == [(value or b"", "unparsable")] * 2
    row = EventStore(sqlite_database).find("helpdesk", "e-good")
    assert row is not None
    assert row.status == "accepted"
    assert consumer.drain() == 0


@pytest.mark.parametrize("key", [None, b"", b"\xff\xfe", b"\x00", "ключ".encode()])
def test_key_is_the_producers_own_affair(
    stream: Stream,
    produce: Produce,
    settings: Settings,
    sqlite_database: Database,
    key: bytes | None,
) -> None:
    produce(feedback_topic(settings), key, GOOD)
    produce(feedback_topic(settings), key, b"poison")
    assert Consumer(sqlite_database, stream, settings).drain() == 2
    assert _dead(sqlite_database) == [(b"poison", "unparsable")]
    assert EventStore(sqlite_database).find("helpdesk", "e-good") is not None


def test_well_formed_events_of_strangers_are_accounted_for(
    stream: Stream, produce: Produce, settings: Settings, sqlite_database: Database
) -> None:
    topic = feedback_topic(settings)
    foreign = event("e-foreign", policy="another")
    undeclared = event("e-metric", feedback={"type": "outcome", "metric": "vibes", "value": True})
    extra = json.dumps(json.loads(GOOD) | {"surprise": 1}).encode()
    again = event("e-good", interaction=interaction(completion="another body"))
    for value in (foreign, undeclared):
        produce(topic, None, value.model_dump_json().encode())
    for raw in (GOOD, extra, GOOD, again.model_dump_json().encode()):
        produce(topic, b"k", raw)
    assert Consumer(sqlite_database, stream, settings).drain() == 6
    reasons = sorted(reason for _, reason in _dead(sqlite_database))
    assert reasons == ["conflict", "inadmissible", "inadmissible", "unparsable"]
    found = EventStore(sqlite_database).find("helpdesk", "e-good")
    assert found is not None
    assert found.status == "accepted"


@pytest.mark.kafka
def test_dead_letters_of_a_topic_made_anew_do_not_displace_those_before(
    kafka_address: str, settings: Settings, sqlite_database: Database
) -> None:
    from kafka import KafkaAdminClient

    from collector.streams.kafka import KafkaStream
    from tacit.config import KafkaSettings

    kafka = KafkaSettings(bootstrap_servers=kafka_address, num_partitions=1)
    topic = feedback_topic(settings)
    lives = [[b"first life", b"the same", b"longer"], [b"second life", b"the same"]]
    for values in lives:
        stream = KafkaStream(kafka)
        stream.append(topic, [("k", value) for value in values])
        assert Consumer(sqlite_database, stream, settings).drain() == len(values)
        stream.close()
        admin = KafkaAdminClient(bootstrap_servers=kafka_address)
        admin.delete_topics([topic])
        admin.close()
    payloads = sorted(payload for payload, _ in _dead(sqlite_database))
    assert payloads == [b"first life", b"longer", b"second life", b"the same"]
