"""A running service for tests of imports, and what came of what was sent to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import select

from collector.consume import Consumer
from collector.streams.embedded import EmbeddedStream
from collector.tables import EventRow
from tacit.config import Settings, load_settings
from tacit.contracts import FeedbackEvent
from tacit.control import create_control
from tacit.database import Database
from tacit.keys import KeyStore, Scope
from tacit.ports import free_port
from tacit.remote import Remote
from tests.collector.test_client import serving


class ImportService:
    """The control application on a port."""

    def __init__(self, settings: Settings, database: Database, port: int) -> None:
        self.settings = settings
        self.database = database
        self.key = KeyStore(database).create("importer", scopes={Scope.SEND}, source="archive")
        self.remote = Remote(f"http://127.0.0.1:{port}", self.key)
        self.stream = EmbeddedStream(settings.home / "stream.db")
        self.consumer = Consumer(database, self.stream, settings)

    def events(self) -> list[FeedbackEvent]:
        """All that was sent, screened now, in order."""
        self.consumer.drain()
        with self.database.reader() as session:
            rows = session.scalars(select(EventRow).order_by(EventRow.sequence))
            return [FeedbackEvent.model_validate_json(row.payload) for row in rows]

    def num_records(self) -> int:
        """How many records were put into the stream, doubles too."""
        topic = f"{self.settings.collector.topic_prefix}.feedback"
        return len(self.stream.read(topic, {}, limit=1_000_000, timeout_s=0.0))


@contextmanager
def import_service(home: Path, database: Database) -> Iterator[ImportService]:
    """A service at ``home`` until the end of the block."""
    metrics = {"resolved": "bool", "helpful": "bool", "tone": "float"}
    collector = {"screening": {"holdout_share": 0.0}, "metrics": metrics}
    settings = load_settings(home=home, collector=collector)
    port = free_port()
    with serving(create_control(settings), port):
        service = ImportService(settings, database, port)
        yield service
        service.stream.close()
