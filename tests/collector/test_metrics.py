"""Metrics: what is counted of requests and feedback, by what names, and who may read it."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse

from collector.ingest import feedback_topic
from collector.monitoring.backlog import Backlog
from collector.monitoring.metrics import (
    OUTCOMES,
    SERIES,
    HttpMetrics,
    MetricsMiddleware,
    SeriesName,
)
from collector.tables import ScreeningCounterRow
from tacit.config import load_settings
from tacit.database import Database
from tacit.keys import Scope
from tests.builders import event
from tests.collector.conftest import MakeRoom
from tests.collector.monitored import (
    Clock,
    Watched,
    samples,
    series,
    watched,
)
from tests.collector.service import Disk, body, opened

__all__ = ["watched"]


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
