"""Health, readiness and metrics: true when all is well, and quick when nothing answers."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse
from sqlalchemy import text
from starlette.requests import ClientDisconnect

from collector.ingest import feedback_topic
from collector.monitoring import backlog, health
from collector.monitoring.backlog import Backlog
from collector.monitoring.lag import Place, WaitingTime
from collector.monitoring.metrics import (
    OUTCOMES,
    SERIES,
    HttpMetrics,
    MetricsMiddleware,
    SeriesName,
)
from collector.monitoring.routes import Monitoring
from collector.tables import DeadLetterRow, ScreeningCounterRow
from tacit.config import Settings, load_settings
from tacit.contracts import utc_now
from tacit.database import Database
from tacit.errors import NotAllowedError, UnavailableError
from tacit.http import install_error_handlers
from tacit.keys import KeyStore, Scope
from tests.builders import event
from tests.collector.conftest import MakeRoom, Room
from tests.collector.service import Disk, body, opened

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class SilentStream:
    """A stream whose server took the connection and then says nothing, until released."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.num_asked = 0

    def end_offsets(self, _topic: str) -> dict[int, int]:
        self.num_asked += 1
        self.release.wait(30)
        return {0: 0}


class AwayStream:
    """A stream that is away."""

    def end_offsets(self, _topic: str) -> dict[int, int]:
        raise UnavailableError("a stream at kafka.internal:9092 as user joe", got="silence")


class Watched:
    """A small application with all of monitoring, and one route that counts as the API does."""

    def __init__(self, room: Room, **collector: object) -> None:
        self.room = room
        self.settings = with_collector(room.settings, **collector)
        self.keys = KeyStore(room.database)
        self.monitoring = Monitoring(self.settings, room.database, room.stream, self.keys)
        app = FastAPI()
        install_error_handlers(app)
        app.add_middleware(MetricsMiddleware, metrics=self.monitoring.http)
        app.include_router(self.monitoring.create_router())
        _add_routes(app)
        self.http = TestClient(app, raise_server_exceptions=False)

    def scrape(self, **headers: str) -> Samples:
        answer = self.http.get("/metrics", headers=headers)
        assert answer.status_code == 200, answer.text
        return samples(answer.text)


def _add_routes(app: FastAPI) -> None:
    @app.get("/things/{name}")
    def thing(name: str) -> str:
        if name == "broken":
            raise RuntimeError(name)
        if name == "forbidden":
            raise NotAllowedError("a key", got=name)
        if name == "gone":
            raise ClientDisconnect
        return name


def with_collector(settings: Settings, **fields: object) -> Settings:
    collector = settings.collector.model_copy(update=fields)
    return settings.model_copy(update={"collector": collector})


def samples(exposition: str) -> Samples:
    """Value of each series, as Prometheus would read it; fails on a series that comes twice."""
    found: Samples = {}
    for family in parse(exposition):
        for sample in family.samples:
            series = (sample.name, frozenset(sample.labels.items()))
            assert series not in found, series
            found[series] = sample.value
    return found


def series(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


@pytest.fixture
def watched(make: MakeRoom) -> Watched:
    """On SQLite."""
    return Watched(make())


# Health and readiness.


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


# Metrics.


def test_every_series_has_help_and_the_kind_it_says(watched: Watched) -> None:
    watched.http.get("/healthz")
    for read, accept in (
        (parse, "text/plain"),
        (parse_openmetrics, "application/openmetrics-text"),
    ):
        answer = watched.http.get("/metrics", headers={"Accept": accept})
        assert answer.headers["content-type"].startswith(accept)
        families = {family.name: family for family in read(answer.text)}
        for name, told in SERIES.items():
            family = families[name.removesuffix("_total")]
            assert (family.type, family.documentation) == (told.kind, told.meaning)
            labels = {label for s in family.samples for label in s.labels} - {"le"}
            assert labels in (set(told.labels), set())
    assert "process_resident_memory_bytes" in families


def test_requests_are_counted_by_route_template(watched: Watched) -> None:
    for path in ("a", "b", "broken", "forbidden", "gone"):
        watched.http.get(f"/things/{path}")
    watched.http.get("/nowhere")
    watched.http.post("/things/a")
    found = watched.scrape()
    for route, method, status, number in (
        ("/things/{name}", "GET", "200", 2),
        ("/things/{name}", "GET", "500", 1),
        ("/things/{name}", "GET", "403", 1),
        ("/things/{name}", "GET", "499", 1),
        ("/things/{name}", "POST", "405", 1),
        ("unmatched", "GET", "404", 1),
    ):
        labels = {"route": route, "method": method, "status": status}
        assert found[series("tacit_http_requests_total", **labels)] == number
    name = "tacit_http_request_seconds_count"
    assert found[series(name, route="/things/{name}", method="GET")] == 5


def test_time_of_a_request_is_observed() -> None:
    registry, clock = CollectorRegistry(), Clock()

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        clock.now += 0.75
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def ignore(_message: Any) -> None: ...

    watching = MetricsMiddleware(app, metrics=HttpMetrics(registry), clock=clock)
    asyncio.run(watching({"type": "http", "method": "GET"}, None, ignore))  # type: ignore[arg-type]
    labels = {"route": "unmatched", "method": "GET"}
    value = registry.get_sample_value
    assert value("tacit_http_request_seconds_sum", labels) == 0.75
    assert value("tacit_http_request_seconds_bucket", {**labels, "le": "0.5"}) == 0
    assert value("tacit_http_request_seconds_bucket", {**labels, "le": "1.0"}) == 1


def test_request_without_an_answer_counts_as_given_up() -> None:
    registry = CollectorRegistry()

    async def app(_scope: Any, _receive: Any, _send: Any) -> None: ...

    watching = MetricsMiddleware(app, metrics=HttpMetrics(registry))
    asyncio.run(watching({"type": "http", "method": "GET"}, None, None))  # type: ignore[arg-type]
    labels = {"route": "unmatched", "method": "GET", "status": "499"}
    assert registry.get_sample_value("tacit_http_requests_total", labels) == 1


def test_what_is_no_request_passes_by() -> None:
    passed: list[str] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        passed.append(scope["type"])

    registry = CollectorRegistry()
    watching = MetricsMiddleware(app, metrics=HttpMetrics(registry))
    asyncio.run(watching({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert passed == ["lifespan"]


def test_ingest_counters_start_at_zero_and_count(watched: Watched) -> None:
    name = "tacit_feedback_events_total"
    before = watched.scrape()
    assert {before[series(name, outcome=outcome)] for outcome in OUTCOMES} == {0}
    counters = watched.monitoring.ingest
    counters.count_events("queued", 3)
    counters.count_events("conflict")
    counters.count_rejected("InvalidInputError", 2)
    found = watched.scrape()
    assert found[series(name, outcome="queued")] == 3
    assert found[series(name, outcome="conflict")] == 1
    assert found[series("tacit_feedback_rejected_total", reason="InvalidInputError")] == 2


def test_what_the_feedback_api_answers_is_counted(
    tmp_path: Path, sqlite_database: Database
) -> None:
    overrides = ["collector.screening.holdout_share=0"]
    with opened(load_settings(home=tmp_path, overrides=overrides), Disk()) as service:
        lines = [body("e-1"), body("e-1"), body("e-1", subject_id="u-2"), "{"]
        for content, kind in (
            (body("e-1"), "application/json"),
            ("\n".join(lines), "application/x-ndjson"),
        ):
            service.send(content, Content_Type=kind)
        service.send(body("e-2"), key="nobody's")
        service.screen()
        found = samples(service.http.get("/metrics").text)
    name = "tacit_feedback_events_total"
    numbers = {"queued": 1, "duplicate": 2, "conflict": 1, "rejected": 1, "other": 0}
    for outcome, number in numbers.items():
        assert found[series(name, outcome=outcome)] == number
    for reason in ("InvalidInputError", "NotAuthenticatedError"):
        assert found[series("tacit_feedback_rejected_total", reason=reason)] == 1
    for status in ("202", "207", "401"):
        labels = {"route": "/v1/feedback", "method": "POST", "status": status}
        assert found[series("tacit_http_requests_total", **labels)] == 1
    assert found[series("tacit_stream_lag_records", topic="tacit.feedback", partition="0")] == 0
    judged = {"policy": "default", "status": "accepted", "reason": ""}
    assert found[series("tacit_screening_total", **judged)] == 1


def test_flood_of_made_up_values_adds_no_series(watched: Watched) -> None:
    counters, http = watched.monitoring.ingest, watched.http

    def flood(start: int) -> None:
        for number in range(start, start + 50):
            http.get(f"/things/{number}")
            http.get(f"/{number}", headers={"Host": f"h{number}"})
            http.request(f"VERB{number}", "/things/a")
            counters.count_events(f"outcome {number}")
            counters.count_rejected(f"got {number}")
            direct = [
                event(f"e-{number}", policy=f"p-{number}"),
                event(f"f-{number}", source=f"s-{number}", subject_id=f"u-{number}"),
            ]
            records = [("k", e.model_dump_json().encode()) for e in direct]
            watched.room.stream.append(feedback_topic(watched.settings), records)
        watched.room.consumer.drain()
        with watched.room.database.session() as session:
            for number in range(start, start + 50):
                row = {"policy": f"p-{number}", "status": "held", "reason": "", "num_events": 1}
                session.merge(ScreeningCounterRow(**row))

    def backlog_series() -> set[Any]:
        reader = Backlog(
            watched.settings, watched.room.database, watched.room.stream, CollectorRegistry()
        )
        families = asyncio.run(reader.families())
        return {(s.name, *s.labels.items()) for f in families for s in f.samples}

    flood(0)
    watched.scrape()  # so that the route of the metrics itself has its series
    first, first_backlog = watched.scrape(), backlog_series()
    flood(100)
    second = watched.scrape()
    assert set(second) == set(first)
    assert backlog_series() == first_backlog
    assert second[series("tacit_feedback_rejected_total", reason="other")] == 100


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


# Who may read the metrics.


@pytest.mark.parametrize(
    ("host", "public", "headers", "status"),
    [
        ("127.0.0.1", None, {}, 200),
        ("127.0.0.2", None, {}, 200),
        ("::1", None, {}, 200),
        ("localhost", None, {}, 200),
        ("127.0.0.1", None, {"X-Forwarded-For": "203.0.113.9"}, 401),
        ("127.0.0.1", None, {"Forwarded": "for=203.0.113.9"}, 401),
        ("0.0.0.0", None, {}, 401),
        ("10.0.0.1", None, {}, 401),
        ("tacit.example", None, {}, 401),
        ("127.0.0.1", False, {}, 401),
        ("0.0.0.0", True, {}, 200),
    ],
)
def test_metrics_are_public_on_loopback_alone(
    make: MakeRoom, host: str, public: bool | None, headers: Mapping[str, str], status: int
) -> None:
    watched = Watched(make(), host=host, metrics_public=public)
    assert watched.http.get("/metrics", headers=headers).status_code == status


def test_metrics_that_are_not_public_need_scope_read(make: MakeRoom) -> None:
    watched = Watched(make(), metrics_public=False)
    for name, scope, bound, status in (
        ("sender", Scope.SEND, {}, 403),
        ("reader", Scope.READ, {}, 200),
        ("foreign", Scope.READ, {"policy": "another"}, 403),
    ):
        key = watched.keys.create(name, scopes={scope}, **bound)
        headers = {"Authorization": f"Bearer {key}"}
        assert watched.http.get("/metrics", headers=headers).status_code == status


def test_settings_of_monitoring() -> None:
    settings = load_settings(overrides=["collector.metrics_public=false"])
    assert settings.collector.metrics_public is False
    assert settings.collector.min_free_bytes == 256 * 1024 * 1024


def test_documentation_names_every_series() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "metrics.md").read_text()
    rows = [
        tuple(cell.strip() for cell in line.strip("|").split("|"))
        for line in page.splitlines()
        if line.startswith("| `tacit_")
    ]
    expected = [
        (f"`{name}`", told.kind, ", ".join(f"`{label}`" for label in told.labels), told.meaning)
        for name, told in SERIES.items()
    ]
    assert rows == expected
    assert set(SERIES) == set(SeriesName)
