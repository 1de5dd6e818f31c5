"""The whole control application on SQLite and an embedded stream, as a product meets it."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import httpx
import uvicorn
from fastapi.testclient import TestClient
from sqlalchemy import select
from starlette.types import ASGIApp

from collector.consume import Consumer
from collector.ingest import feedback_topic
from collector.streams.embedded import EmbeddedStream
from collector.tables import DeadLetterRow, EventRow
from gatekeeper.ledger import Ledger
from tacit.config import Settings
from tacit.contracts import FeedbackEvent
from tacit.control import create_control
from tacit.database import Database
from tacit.keys import KeyStore
from tacit.ports import free_port
from tacit.principal import Scope
from tacit.secrets_file import MasterSecret
from tacit.signing import Signer
from tests.builders import event


def body(event_id: str = "e-1", **fields: Any) -> str:
    """A good event as JSON."""
    return event(event_id, **fields).model_dump_json()


class Disk:
    """What SQLite meets: locks it gives up on at once, and a full disk when told so.

    ``connect`` stands in for ``sqlite3.connect``.
    """

    def __init__(self) -> None:
        self.is_full = False
        self._connect = sqlite3.connect

    def connect(self, *arguments: Any, **named: Any) -> sqlite3.Connection:
        """A connection on this disk."""
        connection = self._connect(*arguments, **{**named, "timeout": 0.1})
        if self.is_full:
            # No file may grow any more; SQLite says so with the error of a full disk.
            connection.execute("PRAGMA max_page_count=1")
        return connection


@dataclass
class Service:
    """One running service, and what a test does around it."""

    settings: Settings
    database: Database
    stream: EmbeddedStream
    consumer: Consumer
    start: Callable[[], TestClient]
    keys: KeyStore
    product_key: str
    """Of the product ``helpdesk``."""
    disk: Disk
    webhook: tuple[str, str] | None = None
    """Secret and path of a webhook, once there is one."""

    @cached_property
    def http(self) -> TestClient:
        """The application, started when it is first needed: that is most of what a test costs."""
        return self.start()

    @property
    def app(self) -> ASGIApp:
        """The application behind ``http``."""
        return self.http.app

    def key(self, name: str, *, scope: Scope = Scope.SEND, **options: Any) -> str:
        """A new key."""
        return self.keys.create(name, scopes={scope}, **options)

    def as_(self, key: str) -> dict[str, str]:
        """Headers of who holds ``key``."""
        return {"Authorization": f"Bearer {key}"}

    def send(self, content: bytes | str, *, key: str | None = None, **headers: str) -> Any:
        """POST to the feedback API; header names are given with ``_`` for ``-``."""
        told = {"Content-Type": "application/json"}
        told |= {name.replace("_", "-"): value for name, value in headers.items()}
        if "Authorization" not in told:
            told |= self.as_(key or self.product_key)
        return self.http.post("/v1/feedback", content=content, headers=told)

    def produce(self, *payloads: bytes) -> None:
        """Put ``payloads`` straight into the stream, as who may produce to the topic can."""
        topic = feedback_topic(self.settings)
        self.stream.append(topic, [("k", payload) for payload in payloads])

    def screen(self) -> None:
        """Screen all that is in the stream."""
        self.consumer.drain()

    def became(self) -> set[str]:
        """What became of all that was sent: statuses and reasons of events and dead letters."""
        with self.database.reader() as session:
            letters = {f"dead letter: {r}" for r in session.scalars(select(DeadLetterRow.reason))}
            rows = session.execute(select(EventRow.status, EventRow.reason)).all()
        # A dead letter that could be parsed has a row of each kind.
        events = {f"{status}: {r}" if r else status for status, r in rows}
        return letters | {each for each in events if not each.startswith("dead_letter")}

    def kept(self, event_key: str) -> list[FeedbackEvent]:
        """What the stream holds under ``event_key``."""
        topic = feedback_topic(self.settings)
        records = self.stream.read(topic, {}, limit=1_000_000, timeout_s=0.0)
        events = [FeedbackEvent.model_validate_json(record.value) for record in records]
        return [event for event in events if event.event_key == event_key]

    def num_events(self) -> int:
        """How many events were screened."""
        with self.database.reader() as session:
            return len(session.scalars(select(EventRow.event_key)).all())


Send = Callable[[Service], httpx.Response]


class Senders(dict[str, Send]):
    """Functions by the row of docs/reference/bad-input.md that they send the input of."""

    def row(self, name: str) -> Callable[[Send], Send]:
        """Names the row of a function."""

        def keep(send: Send) -> Send:
            self[name] = send
            return send

        return keep


@contextmanager
def opened(settings: Settings, disk: Disk) -> Iterator[Service]:
    """A service on the migrated database that ``settings`` name; several may share it."""
    database = Database(settings.resolved_database_url)
    stream = EmbeddedStream(settings.home / "stream.db")
    ledger = Ledger(database, Signer.load_or_create(settings.signing_path))
    master = MasterSecret.load_or_create(settings.keys_path)
    keys = KeyStore(database, master=master, journal=ledger.append)
    with ExitStack() as running:

        def start() -> TestClient:
            app = create_control(settings)
            return running.enter_context(TestClient(app, raise_server_exceptions=False))

        name = f"shop-{len(keys.in_force())}"
        key = keys.create(name, scopes={Scope.SEND}, source="helpdesk")
        consumer = Consumer(database, stream, settings)
        yield Service(settings, database, stream, consumer, start, keys, key, disk)
    stream.close()
    database.dispose()


@contextmanager
def served(service: Service) -> Iterator[str]:
    """The application on a port of its own; its URL."""
    port = free_port()
    config = uvicorn.Config(service.app, port=port, log_level="error", ws="none", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        thread.join(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()
