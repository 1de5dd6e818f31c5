"""What waits in database and stream, as a scrape reads it, and for how long it has waited."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from collector.ingest import feedback_topic
from collector.monitoring import backlog
from collector.monitoring.backlog import Backlog
from collector.monitoring.lag import Place, WaitingTime
from collector.tables import DeadLetterRow, ScreeningCounterRow
from tacit.contracts import utc_now
from tacit.database import Database
from tests.builders import event
from tests.collector.conftest import MakeRoom, Room
from tests.collector.monitored import (
    AwayStream,
    Clock,
    Samples,
    SilentStream,
    Watched,
    series,
)


@contextmanager
def reading(room: Room, clock: Clock) -> Iterator[Callable[[], Samples]]:
    """Reads the backlog as a scrape does, on a clock of the test's."""
    registry = CollectorRegistry()
    reader = Backlog(room.settings, room.database, room.stream, registry, clock=clock)

    def read() -> Samples:
        found = {}
        for family in [*asyncio.run(reader.families()), *registry.collect()]:
            found.update({(s.name, frozenset(s.labels.items())): s.value for s in family.samples})
        return found

    yield read


def test_backlog_is_what_stands_in_database_and_stream(room: Room) -> None:
    clock = Clock()
    with reading(room, clock) as read:
        room.ingestor.accept([event(f"e-{i}", subject_id=f"u-{i}") for i in range(3)])
        found = read()
        lag = series("tacit_stream_lag_records", topic="tacit.feedback", partition="0")
        events = series("tacit_events", policy="default", status="accepted")
        assert found[lag] == 3
        assert events not in found
        room.stream.append(feedback_topic(room.settings), [("k", b"not json")])
        room.consumer.drain()
        with room.database.session() as session:
            row = {"policy": "default", "status": "accepted", "reason": "test", "num_events": 7}
            session.add(ScreeningCounterRow(**row))
        clock.now += backlog.EVENTS_CACHE_S
        found = read()
        assert found[lag] == 0
        assert sum(v for (name, _), v in found.items() if name == "tacit_events") == 3
        assert found[series("tacit_dead_letters")] == 1
        judged = {"policy": "default", "status": "accepted", "reason": "test"}
        assert found[series("tacit_screening_total", **judged)] == 7


def test_events_are_not_counted_at_each_scrape(
    make: MakeRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, clock, counted = make(), Clock(), []
    count = backlog._DatabasePart._count_events

    def slow(part: Any) -> Any:
        counted.append(clock.now)
        clock.now += 0.5
        return count(part)

    monkeypatch.setattr(backlog._DatabasePart, "_count_events", slow)
    with reading(room, clock) as read:
        for _ in range(60):
            read()
            clock.now += 1
    # Half a second's counting waits 25 s, so that it takes a fiftieth of the time.
    assert counted == [0.0, 25.5, 51.0]


def test_backlog_is_kept_for_a_second(make: MakeRoom) -> None:
    room, clock = make(), Clock()
    with reading(room, clock) as read:
        assert read()[series("tacit_dead_letters")] == 0
        with room.database.session() as session:
            letter = {"topic": "t", "partition": 0, "offset": 0, "payload": b"", "reason": "r"}
            session.add(DeadLetterRow(**letter, detail="", occurred_at=utc_now()))
        for now, number in ((0.9, 0), (1.0, 1)):
            clock.now = now
            assert read()[series("tacit_dead_letters")] == number


def test_scrape_goes_on_when_database_and_stream_do_not(make: MakeRoom) -> None:
    room = make()
    room.stream = AwayStream()  # type: ignore[assignment]
    room.database = Database(f"sqlite:///{room.settings.home}/empty.db")
    watched = Watched(room)
    watched.monitoring.ingest.count_events("queued")
    for _ in range(2):
        found = watched.scrape()
    for part in ("database", "stream"):
        assert found[series("tacit_scrape_errors_total", part=part)] == 2
    assert series("tacit_dead_letters") not in found
    assert found[series("tacit_feedback_events_total", outcome="queued")] == 1
    assert series("process_open_fds") in found
    room.database.dispose()


def test_scrape_does_not_wait_for_what_hangs(make: MakeRoom) -> None:
    room, stream = make(), SilentStream()
    room.stream = stream  # type: ignore[assignment]
    registry = CollectorRegistry()
    reader = Backlog(room.settings, room.database, room.stream, registry, timeout_s=0.05)
    names = {family.name for family in asyncio.run(reader.families())}
    assert names == {"tacit_screening", "tacit_events", "tacit_dead_letters"}
    assert registry.get_sample_value("tacit_scrape_errors_total", {"part": "stream"}) == 1
    stream.release.set()


def waited(clock: Clock, waiting: WaitingTime, now: float, **places: tuple[int, int]) -> float:
    clock.now = now
    at = {int(name[1:]): Place(*place) for name, place in places.items()}
    return waiting.update(at)


def test_waiting_time_is_that_of_the_oldest_record_not_screened() -> None:
    clock = Clock()
    waiting = WaitingTime(clock)
    look: Callable[..., float] = lambda now, **p: waited(clock, waiting, now, **p)  # noqa: E731
    assert look(0, p0=(0, 0)) == 0
    assert look(10, p0=(0, 5)) == 0
    assert look(20, p0=(0, 8), p1=(0, 1)) == 10
    assert look(30, p0=(5, 9), p1=(1, 1)) == 10
    assert look(40, p0=(8, 9), p1=(1, 1)) == 10
    assert look(50, p0=(9, 9), p1=(1, 1)) == 0


def test_waiting_time_of_a_consumer_that_died_stays_true_and_small_in_memory() -> None:
    clock = Clock()
    waiting = WaitingTime(clock)
    for second in range(5_000):
        assert waited(clock, waiting, second, p0=(0, second + 1)) == second
    assert sum(len(seen) for seen in waiting._seen.values()) < 1_000
