"""Ingestion: groups, rivals, a store that refuses, senders that go away."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from collector.consume import Consumer
from collector.ingest import Ingestor, feedback_topic, prepare
from collector.streams.embedded import EmbeddedStream
from tacit.config import Settings, load_settings
from tacit.contracts import Correction
from tacit.database import Database
from tacit.errors import TooLargeError, UnavailableError
from tests.builders import event


class Gate:
    """A stream whose appends wait for a sign and are written down."""

    def __init__(self, stream: EmbeddedStream) -> None:
        self._stream = stream
        self.open = threading.Event()
        self.entered = threading.Event()
        self.appends: list[int] = []
        self.errors: list[Exception] = []

    def append(self, topic: str, records: Sequence[tuple[str, bytes]]) -> None:
        self.appends.append(len(records))
        self.entered.set()
        assert self.open.wait(10)
        if self.errors:
            raise self.errors.pop()
        self._stream.append(topic, records)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path)


@pytest.fixture
def gate(tmp_path: Path) -> Any:
    stream = EmbeddedStream(tmp_path / "stream.db")
    yield Gate(stream)
    stream.close()


def stored(stream: Any, settings: Settings) -> list[bytes]:
    topic = feedback_topic(settings)
    return [r.value for r in stream.read(topic, {}, limit=99_999, timeout_s=0.0)]


def test_requests_that_wait_go_in_together(
    sqlite_database: Database, gate: Gate, settings: Settings
) -> None:
    ingestor = Ingestor(sqlite_database, gate, settings)
    with ThreadPoolExecutor(21) as pool:
        first = pool.submit(ingestor.accept, [event("e-first")])
        assert gate.entered.wait(10)
        rest = [pool.submit(ingestor.accept, [event(f"e-{i}")]) for i in range(20)]
        while ingestor.requests.num_waiting < 20:
            pass
        gate.open.set()
        outcomes = [f.result(10)[0] for f in (first, *rest)]
    assert gate.appends == [1, 20]
    assert [o.event_id for o in outcomes] == ["e-first", *(f"e-{i}" for i in range(20))]
    assert {o.status for o in outcomes} == {"queued"}
    ingestor.close()


def test_same_events_from_many_threads_are_stored_once(
    database: Database, tmp_path: Path, settings: Settings
) -> None:
    stream = EmbeddedStream(tmp_path / "stream.db")
    ingestor = Ingestor(database, stream, settings)
    events = [event(f"e-{i}") for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: ingestor.accept(events), range(16)))
    statuses = [[receipt.status for receipt in receipts] for receipts in taken]
    assert len(stored(stream, settings)) == 40
    assert sum(row.count("queued") for row in statuses) == 40
    assert sum(row.count("duplicate") for row in statuses) == 15 * 40
    ingestor.close()
    stream.close()


def test_two_processes_worth_agree_on_who_was_first(
    database: Database, tmp_path: Path, settings: Settings
) -> None:
    """Whoever comes second is told so and appends nothing but the rest of its own."""
    stream = EmbeddedStream(tmp_path / "stream.db")
    rivals = [Ingestor(database, stream, settings) for _ in range(2)]
    bodies = [
        [event(f"e-{i}", feedback=Correction(completion=word)) for i in range(60)]
        for word in ("shipping", "returns")
    ]

    def send(which: int) -> list[str]:
        # Groups that overlap in part: one goes up by threes, the other by fours.
        size = 3 + which
        chunks = [rivals[which].accept(bodies[which][i : i + size]) for i in range(0, 60, size)]
        return [receipt.status for chunk in chunks for receipt in chunk]

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(send, range(2))
    assert {frozenset(pair) for pair in zip(one, other, strict=True)} == {
        frozenset({"queued", "conflict"})
    }
    assert len(stored(stream, settings)) == 60
    Consumer(database, stream, settings).drain()
    again = [receipt.status for receipt in rivals[0].accept(bodies[0])]
    assert set(again) == {"duplicate", "conflict"} or set(again) in ({"duplicate"}, {"conflict"})
    for rival in rivals:
        rival.close()
    stream.close()


def test_refusal_reaches_all_who_waited_and_the_next_get_in(
    sqlite_database: Database, gate: Gate, settings: Settings
) -> None:
    ingestor = Ingestor(sqlite_database, gate, settings)
    gate.errors = [RuntimeError("a bug"), UnavailableError("a stream")]
    gate.open.set()
    with pytest.raises(UnavailableError):
        ingestor.accept([event("e-1")])
    with pytest.raises(RuntimeError, match="a bug"):
        ingestor.accept([event("e-1")])
    assert ingestor.accept([event("e-1")])[0].status == "queued"
    ingestor.close()


def test_closing_takes_what_waits_and_refuses_what_comes(
    sqlite_database: Database, gate: Gate, settings: Settings
) -> None:
    ingestor = Ingestor(sqlite_database, gate, settings)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(ingestor.accept, [event("e-1")])
        assert gate.entered.wait(10)
        second = pool.submit(ingestor.accept, [event("e-2")])
        while not ingestor.requests.num_waiting:
            pass
        closing = pool.submit(ingestor.close)
        while not ingestor.requests.closed:
            pass
        with pytest.raises(UnavailableError, match="stopping"):
            ingestor.accept([event("e-3")])
        gate.open.set()
        closing.result(10)
        assert [f.result(10)[0].status for f in (first, second)] == ["queued", "queued"]
    assert len(stored(gate, settings)) == 2


def test_sender_that_goes_away_leaves_its_event_durable(
    sqlite_database: Database, gate: Gate, settings: Settings
) -> None:
    ingestor = Ingestor(sqlite_database, gate, settings)

    async def send_and_leave() -> None:
        sending = asyncio.create_task(ingestor.accept_prepared([prepare(event("e-1"), settings)]))
        while not gate.entered.is_set():
            await asyncio.sleep(0.001)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        gate.open.set()
        outcomes = await ingestor.accept_prepared([prepare(event("e-2"), settings)])
        assert list(outcomes) == ["queued"]

    asyncio.run(send_and_leave())
    assert ingestor.accept([event("e-1")])[0].status == "duplicate"
    ingestor.close()


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from collector.ingest import Ingestor, feedback_topic
from collector.streams.embedded import EmbeddedStream
from tacit.config import load_settings
from tacit.database import Database
from tacit.errors import TooLargeError, UnavailableError
from tests.builders import event

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
home = Path(sys.argv[1])
settings = load_settings(home=home)
database = Database(settings.resolved_database_url)
database.migrate()
stream = EmbeddedStream(home / "stream.db")
ingestor = Ingestor(database, stream, settings)
events = (event(f"e-{i}") for i in range(100_000))
resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))
acknowledged = []
while True:
    batch = [next(events) for _ in range(50)]
    try:
        ingestor.accept(batch)
    except UnavailableError as error:
        print("refused:", error.got)
        break
    acknowledged += batch
for _ in range(3):
    try:
        ingestor.accept(batch)
        print("accepted on a full disk")
    except UnavailableError:
        pass
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
ingestor.accept(batch)
ingestor.accept(acknowledged)
values = [r.value for r in stream.read(feedback_topic(settings), {}, limit=10**6, timeout_s=0)]
kept = {v for v in values}
wanted = {e.model_dump_json().encode() for e in (*acknowledged, *batch)}
print("lost", len(wanted - kept), "acknowledged", len(acknowledged) > 0)
"""


def test_full_disk_refuses_and_loses_nothing(tmp_path: Path) -> None:
    """No file may grow past a limit, which SQLite meets as it meets a full disk."""
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    lines = run.stdout.splitlines()
    assert lines[0].startswith("refused: ")
    assert lines[1:] == ["lost 0 acknowledged True"]


def test_request_that_cannot_be_taken_harms_no_neighbour(
    sqlite_database: Database, gate: Gate, settings: Settings
) -> None:
    def refuse_large(topic: str, records: Sequence[tuple[str, bytes]]) -> None:
        gate.entered.set()
        assert gate.open.wait(10)
        if any(b"e-large" in value for _, value in records):
            raise TooLargeError("a smaller record")
        gate._stream.append(topic, records)

    gate.append = refuse_large  # type: ignore[method-assign]
    ingestor = Ingestor(sqlite_database, gate, settings)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(ingestor.accept, [event("e-first")])
        assert gate.entered.wait(10)
        small = pool.submit(ingestor.accept, [event("e-small")])
        large = pool.submit(ingestor.accept, [event("e-large")])
        while ingestor.requests.num_waiting < 2:
            pass
        gate.open.set()
        assert first.result(10)[0].status == small.result(10)[0].status == "queued"
        with pytest.raises(TooLargeError):
            large.result(10)
    ingestor.close()


def test_event_larger_than_a_record_is_refused_by_itself(
    sqlite_database: Database, gate: Gate, tmp_path: Path
) -> None:
    settings = load_settings(home=tmp_path, collector={"max_event_bytes": 2_000})
    ingestor = Ingestor(sqlite_database, gate, settings)
    gate.open.set()
    large = event("e-1", feedback=Correction(completion="x" * 2_000))
    with pytest.raises(TooLargeError, match="at most 2000 bytes"):
        ingestor.accept([large])
    assert gate.appends == []
    ingestor.close()


def test_sender_whose_loop_has_ended_does_not_end_the_thread(
    sqlite_database: Database, gate: Gate, settings: Settings
) -> None:
    ingestor = Ingestor(sqlite_database, gate, settings)

    async def send_and_go() -> None:
        sending = asyncio.create_task(ingestor.accept_prepared([prepare(event("e-1"), settings)]))
        while not gate.entered.is_set():
            await asyncio.sleep(0.001)
        sending.cancel()

    asyncio.run(send_and_go())
    gate.open.set()
    assert ingestor.accept([event("e-2")])[0].status == "queued"
    ingestor.close()


def test_commit_that_is_broken_off_acknowledges_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread commits for all: what breaks it off must not look like success to the others."""
    stream = EmbeddedStream(tmp_path / "stream.db")
    entered, go_on = threading.Event(), threading.Event()

    def break_off(*_: Any) -> None:
        entered.set()
        assert go_on.wait(10)
        raise RuntimeError("broken off")

    monkeypatch.setattr("collector.streams.embedded._insert", break_off)
    with ThreadPoolExecutor(3) as pool, stream._writer_lock:
        asked = [pool.submit(stream.append, "t", [("u", b"x")]) for _ in range(3)]
        while len(stream._waiting) < 3:
            pass
        go_on.set()
        stream._writer_lock.release()
        errors = [type(a.exception(10)) for a in asked]
        stream._writer_lock.acquire()
    assert entered.is_set()
    assert sorted(e.__name__ for e in errors) == [
        "RuntimeError",
        "UnavailableError",
        "UnavailableError",
    ]
    monkeypatch.undo()
    stream.append("t", [("u", b"after")])
    assert [r.value for r in stream.read("t", {}, limit=9, timeout_s=0.0)] == [b"after"]
    stream.close()
