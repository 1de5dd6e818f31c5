"""Fixtures of the collector: a Kafka broker, streams of both kinds, a room of all parts."""

import os
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from collector.consume import Consumer
from collector.ingest import Ingestor
from collector.store import EventStore
from collector.streams import Stream
from collector.streams.embedded import EmbeddedStream
from tacit.config import KafkaSettings, Settings, load_settings
from tacit.contracts import FeedbackEvent
from tacit.database import Database
from tests.collector.brokers import Broker


@dataclass
class Room:
    """The collector on one database and one stream."""

    settings: Settings
    database: Database
    stream: Stream
    ingestor: Ingestor
    consumer: Consumer
    store: EventStore

    def screen(self, *events: FeedbackEvent) -> None:
        """Send ``events`` and screen them."""
        self.ingestor.accept(events)
        self.consumer.drain()

    def became(self, event_id: str, *, source: str = "helpdesk") -> tuple[str, str | None]:
        """Status and reason of an event."""
        row = self.store.find(source, event_id)
        assert row is not None
        return row.status, row.reason


def make_room(database: Database, stream: Stream, settings: Settings) -> Room:
    """A room; several on one database and stream are several processes' worth."""
    return Room(
        settings,
        database,
        stream,
        Ingestor(database, stream, settings),
        Consumer(database, stream, settings),
        EventStore(database),
    )


MakeRoom = Callable[..., Room]


@pytest.fixture
def make(tmp_path: Path, sqlite_database: Database) -> Iterator[MakeRoom]:
    """Makes rooms on SQLite; keyword arguments are screening settings."""
    stream = EmbeddedStream(tmp_path / "stream.db")
    made: list[Room] = []

    def build(metrics: dict[str, str] | None = None, **screening: object) -> Room:
        collector: dict[str, object] = {"screening": {"holdout_share": 0.0, **screening}}
        if metrics is not None:
            collector["metrics"] = metrics
        settings = load_settings(home=tmp_path, collector=collector)
        made.append(make_room(sqlite_database, stream, settings))
        return made[-1]

    yield build
    for room in made:
        room.ingestor.close()
    stream.close()


@pytest.fixture
def room(tmp_path: Path, database: Database) -> Iterator[Room]:
    """A room on SQLite and on PostgreSQL, with nothing held out."""
    stream = EmbeddedStream(tmp_path / "stream.db")
    overrides = ["collector.screening.holdout_share=0"]
    room = make_room(database, stream, load_settings(home=tmp_path, overrides=overrides))
    yield room
    room.ingestor.close()
    stream.close()


@pytest.fixture(scope="session")
def kafka_address() -> Iterator[str]:
    """``host:port`` of a real broker: TACIT_TEST_KAFKA, or one of our own."""
    given = os.environ.get("TACIT_TEST_KAFKA")
    if given:
        yield given
        return
    broker = Broker(Path(tempfile.mkdtemp(prefix="tacit-kafka-"))).start()
    yield broker.address
    broker.remove()


@pytest.fixture
def make_broker(tmp_path: Path) -> Iterator[Callable[..., Broker]]:
    """Starts brokers that the test may kill; keyword arguments are those of Broker."""
    made: list[Broker] = []

    def build(**options: Sequence[str]) -> Broker:
        made.append(Broker(tmp_path / f"broker-{len(made)}", **options))
        return made[-1].start()

    yield build
    for broker in made:
        broker.remove()


StreamMaker = Callable[[], Stream]


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def open_again(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StreamMaker]:
    """Opens the stream of the test, each time as another process would."""
    opened: list[Stream] = []

    def build() -> Stream:
        if request.param == "embedded":
            opened.append(EmbeddedStream(tmp_path / "stream.db"))
        else:
            from collector.streams.kafka import KafkaStream

            address = request.getfixturevalue("kafka_address")
            opened.append(KafkaStream(KafkaSettings(bootstrap_servers=address)))
        return opened[-1]

    yield build
    for stream in opened:
        stream.close()


@pytest.fixture
def topic() -> str:
    """A topic of the test's own."""
    return f"t-{uuid.uuid4().hex}"
