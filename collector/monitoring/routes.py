"""How the control application is watched: ``/healthz``, ``/readyz`` and ``/metrics``.

In: what the application is made of. Out: routes, and counters for others to count with. Each
application has a registry of its own, so that several can live in one process.
"""

import ipaddress
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from starlette.concurrency import run_in_threadpool

from collector.monitoring.backlog import Backlog
from collector.monitoring.health import Line, Readiness
from collector.monitoring.metrics import HttpMetrics, IngestCounters
from collector.streams import Stream
from tacit.config import Settings
from tacit.database import Database
from tacit.http import bearer_principal
from tacit.keys import KeyStore, Scope

_PROXY_HEADERS = ("forwarded", "x-forwarded-for", "x-real-ip")


class Monitoring:
    """The routes and the counters of one application."""

    def __init__(
        self, settings: Settings, database: Database, stream: Stream, keys: KeyStore
    ) -> None:
        self.registry = CollectorRegistry()
        self.ingest = IngestCounters(self.registry)
        self.http = HttpMetrics(self.registry)
        ProcessCollector(registry=self.registry)
        self._backlog = Backlog(settings, database, stream, self.registry)
        self._readiness = Readiness(settings, database, stream)
        self._settings = settings
        self._keys = keys

    def create_router(self) -> APIRouter:
        """The three routes."""
        router = APIRouter(tags=["monitoring"])

        @router.get("/healthz")
        async def healthz() -> dict[str, str]:
            """The process answers."""
            return {"status": "ok"}

        @router.get("/readyz", responses={503: {"description": "Not ready, and why"}})
        async def readyz() -> JSONResponse:
            """Whether an event could be made durable and screened now, check by check."""
            return _readiness_answer(await self._readiness.lines())

        @router.get("/metrics", response_class=Response)
        async def metrics(request: Request) -> Response:
            """All series in Prometheus' text form; see docs/reference/metrics.md."""
            await self._require_access(request)
            return await self._scrape(request.headers.get("accept", ""))

        return router

    async def _scrape(self, accept: str) -> Response:
        backlog = await self._backlog.families()
        encode, content_type = choose_encoder(accept)
        return Response(
            encode(_Scrape(self.registry, backlog)), headers={"Content-Type": content_type}
        )

    async def _require_access(self, request: Request) -> None:
        if not is_public(self._settings, request):
            principal = await run_in_threadpool(bearer_principal, self._keys, request)
            principal.require(Scope.READ)
            principal.require_target(policy=self._settings.policy)


def is_public(settings: Settings, request: Request) -> bool:
    """Whether ``request`` may read the metrics without a key."""
    given = settings.collector.metrics_public
    if given is not None:
        return given
    # A proxy on this machine makes the whole world look local.
    is_proxied = any(name in request.headers for name in _PROXY_HEADERS)
    return _is_loopback(settings.collector.host) and not is_proxied


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _readiness_answer(lines: dict[str, Line]) -> JSONResponse:
    ready = all(line.ok for line in lines.values())
    checks: dict[str, dict[str, Any]] = {
        name: {"ok": True} if line.ok else line._asdict() for name, line in lines.items()
    }
    status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
    return JSONResponse({"ready": ready, "checks": checks}, status)


class _Scrape(CollectorRegistry):
    """What is counted in the process, and the backlog as it was just read."""

    def __init__(self, registry: CollectorRegistry, backlog: list[Metric]) -> None:
        super().__init__()
        self._registry = registry
        self._backlog = backlog

    def collect(self) -> Iterator[Metric]:
        yield from self._registry.collect()
        yield from self._backlog
