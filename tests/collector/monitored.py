"""A small application with all of monitoring, and what it watches: streams that fail, a clock."""

import threading

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families as parse
from starlette.requests import ClientDisconnect

from collector.monitoring.metrics import (
    MetricsMiddleware,
)
from collector.monitoring.routes import Monitoring
from tacit.config import Settings
from tacit.errors import NotAllowedError, UnavailableError
from tacit.http import install_error_handlers
from tacit.keys import KeyStore
from tests.collector.conftest import MakeRoom, Room

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
