"""Health and readiness: true when all is well, and quick when nothing answers."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import text

from collector.monitoring import health
from tacit.database import Database
from tests.collector.conftest import MakeRoom, Room
from tests.collector.monitored import (
    AwayStream,
    Clock,
    SilentStream,
    Watched,
    watched,
)

__all__ = ["watched"]


def test_process_is_healthy_whatever_else_is_not(watched: Watched) -> None:
    watched.room.database.dispose()
    (watched.settings.home / "tacit.db").unlink()
    assert watched.http.get("/healthz").json() == {"status": "ok"}


def test_ready_when_all_answers(room: Room) -> None:
    answer = Watched(room).http.get("/readyz")
    checks = ("database", "migrations", "stream", "disk")
    assert answer.json() == {"ready": True, "checks": {name: {"ok": True} for name in checks}}
    assert answer.status_code == 200


def not_ready(watched: Watched) -> dict[str, Any]:
    """The lines of the checks that fail."""
    answer = watched.http.get("/readyz")
    assert (answer.status_code, answer.json()["ready"]) == (503, False)
    lines = answer.json()["checks"]
    assert set(lines) == {"database", "migrations", "stream", "disk"}
    return {name: line for name, line in lines.items() if not line["ok"]}


def test_old_schema_is_not_ready(watched: Watched) -> None:
    with watched.room.database.session() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    (line,) = not_ready(watched).values()
    assert line["got"].startswith("0001, not ")


def test_database_without_tables_is_not_ready(make: MakeRoom) -> None:
    room = make()
    room.database = Database(f"sqlite:///{room.settings.home}/empty.db")
    assert set(not_ready(Watched(room))) == {"database", "migrations"}
    room.database.dispose()


def test_full_disk_is_not_ready(make: MakeRoom) -> None:
    lines = not_ready(Watched(make(), min_free_bytes=1 << 62))
    assert set(lines) == {"disk"}
    assert str(1 << 62) in lines["disk"]["expected"]


def test_disk_of_a_database_elsewhere_counts_too(
    make: MakeRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    def usage(folder: object) -> SimpleNamespace:
        return SimpleNamespace(free=0 if str(folder) == "/elsewhere" else 1 << 40)

    monkeypatch.setattr("shutil.disk_usage", usage)
    room = make()
    watched = Watched(room)
    assert watched.http.get("/readyz").status_code == 200
    room.settings = room.settings.model_copy(
        update={"database_url": "sqlite:////elsewhere/tacit.db"}
    )
    assert set(not_ready(Watched(room))) == {"disk"}


def test_stream_away_is_told_without_its_address(
    make: MakeRoom, caplog: pytest.LogCaptureFixture
) -> None:
    room = make()
    room.stream = AwayStream()  # type: ignore[assignment]
    watched = Watched(room)
    lines = not_ready(watched)
    assert lines["stream"]["got"] == "UnavailableError"
    assert set(lines) == {"stream"}
    assert "kafka.internal" not in str(lines)
    assert "kafka.internal" in caplog.text


def test_readiness_does_not_wait_for_what_hangs(make: MakeRoom) -> None:
    room = make()
    stream = SilentStream()
    room.stream = stream  # type: ignore[assignment]
    watched = Watched(room)
    started_at = time.perf_counter()
    assert set(not_ready(watched)) == {"stream"}
    assert time.perf_counter() - started_at < 2.0
    stream.release.set()


def readiness(room: Room, clock: Clock, *, timeout_s: float = 5.0) -> health.Readiness:
    return health.Readiness(
        room.settings, room.database, room.stream, clock=clock, timeout_s=timeout_s
    )


def test_readiness_is_kept_for_a_second(make: MakeRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    room, clock = make(), Clock()
    watched = readiness(room, clock)
    assert asyncio.run(watched.lines())["disk"].ok
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=0))
    for now, ok in ((0.99, True), (1.0, False)):
        clock.now = now
        assert asyncio.run(watched.lines())["disk"].ok is ok


def test_hanging_check_is_asked_once_however_often_one_looks(make: MakeRoom) -> None:
    room, clock, stream = make(), Clock(), SilentStream()
    room.stream = stream  # type: ignore[assignment]
    watched = readiness(room, clock, timeout_s=0.05)
    for _ in range(5):
        clock.now += 10
        assert not asyncio.run(watched.lines())["stream"].ok
    assert stream.num_asked == 1
    stream.release.set()
    deadline = time.monotonic() + 10
    while not asyncio.run(watched.lines())["stream"].ok:
        clock.now += 10
        assert time.monotonic() < deadline
