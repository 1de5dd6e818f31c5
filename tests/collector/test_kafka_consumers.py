"""Several consumers on one topic: the database decides, so none is lost and none counts twice."""

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from collector.ingest import feedback_topic
from collector.streams.kafka import KafkaStream
from collector.tables import DeadLetterRow, EventRow
from tacit.config import Settings, load_settings
from tacit.database import Database
from tests.builders import event, user

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
NUM_EVENTS = 5_000
CHUNK = 500


@pytest.fixture
def settings(kafka_address: str, tmp_path: Path, topic: str) -> Settings:
    """Four partitions of the shared broker."""
    kafka = {"bootstrap_servers": kafka_address, "num_partitions": 4}
    screening = {"holdout_share": 0}
    collector = {
        "stream": "kafka",
        "topic_prefix": topic,
        "kafka": kafka,
        "screening": screening,
    }
    return load_settings(home=tmp_path, collector=collector)


@pytest.fixture
def send(settings: Settings) -> Iterator[Callable[[range], None]]:
    """Produces events directly, a few hundred a request."""
    stream = KafkaStream(settings.collector.kafka)

    def produce(numbers: range) -> None:
        records = []
        for number in numbers:
            said = {"prompt": user(f"prompt number {number} of many"), "completion": "billing"}
            sent = event(f"e-{number}", subject_id=f"u-{number}", interaction=said)
            records.append((sent.subject_id, sent.model_dump_json().encode()))
        for start in range(0, len(records), CHUNK):
            stream.append(feedback_topic(settings), records[start : start + CHUNK])

    yield produce
    stream.close()


class Crowd:
    """Consumers in processes of their own."""

    def __init__(self, database: Database, settings: Settings, log: Path) -> None:
        self._command = [
            *(sys.executable, "-m", "tests.collector.screening_process"),
            *(database.url, settings.model_dump_json()),
        ]
        self._log = log.open("a+")
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """One more."""
        self.running.append(subprocess.Popen(self._command, stdout=self._log, stderr=self._log))

    def kill(self, number: int) -> None:
        """SIGKILL one."""
        process = self.running.pop(number)
        process.kill()
        process.wait()

    def count(self, word: str) -> int:
        """How often any of them said ``word``."""
        self._log.seek(0)
        return self._log.read().splitlines().count(word)

    def end(self) -> None:
        """Kill all."""
        while self.running:
            self.kill(0)
        self._log.close()


@pytest.fixture
def crowd(database: Database, settings: Settings, tmp_path: Path) -> Iterator[Crowd]:
    """Nobody at first."""
    made = Crowd(database, settings, tmp_path / "crowd.log")
    yield made
    made.end()


def _wait(done: Callable[[], bool], *, timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _num_screened(database: Database) -> int:
    with database.reader() as session:
        return session.scalar(select(func.count()).select_from(EventRow)) or 0


def _all_screened_once(database: Database, num_events: int = NUM_EVENTS) -> bool:
    with database.reader() as session:
        keys = Counter(session.scalars(select(EventRow.event_id)))
        sequences = sorted(session.scalars(select(EventRow.sequence)))
        dead = session.scalars(select(DeadLetterRow)).all()
    expected = Counter(f"e-{number}" for number in range(num_events))
    return keys == expected and len(set(sequences)) == num_events and not dead


def test_consumers_killed_at_random_lose_none_and_double_none(
    database: Database, send: Callable[[range], None], crowd: Crowd
) -> None:
    luck, num_events = random.Random(3), 3_000
    for _ in range(3):
        crowd.start()
    for start in range(0, num_events, 750):
        send(range(start, start + 750))
        time.sleep(luck.random())
        crowd.kill(luck.randrange(len(crowd.running)))
        crowd.start()
    _wait(lambda: _num_screened(database) >= num_events)
    time.sleep(1.0)  # long enough for a rival to write a chunk twice, if it could
    assert _all_screened_once(database, num_events)


def test_consumers_that_are_not_first_stand_by_instead_of_wasting_work(
    sqlite_database: Database, settings: Settings, send: Callable[[range], None], tmp_path: Path
) -> None:
    crowd = Crowd(sqlite_database, settings, tmp_path / "rivals.log")
    try:
        for _ in range(3):
            crowd.start()
        _wait(lambda: crowd.count("ready") == 3)
        send(range(NUM_EVENTS))
        _wait(lambda: _num_screened(sqlite_database) >= NUM_EVENTS)
        assert _all_screened_once(sqlite_database)
        # Ten chunks at least; without standing by each is read by all three, and two are in vain.
        assert crowd.count("lost") <= 6
    finally:
        crowd.end()
