"""Prometheus series of the control application: their names, and those counted in the process.

``SERIES`` is the one list of names, kinds, labels and meanings; docs/reference/metrics.md is held
to it by a test. No label ever has a value that a caller chose: a flood of made-up paths, methods
or errors adds no series.
"""

import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tacit.errors import TacitError

OTHER = "other"
UNMATCHED = "unmatched"
"""Route of a request that no route was found for."""
OUTCOMES = ("queued", "duplicate", "conflict", "rejected")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class SeriesName(StrEnum):
    """Names of all series of ``GET /metrics`` that are Tacit's own."""

    HTTP_REQUESTS = "tacit_http_requests_total"
    HTTP_SECONDS = "tacit_http_request_seconds"
    FEEDBACK_EVENTS = "tacit_feedback_events_total"
    FEEDBACK_REJECTED = "tacit_feedback_rejected_total"
    SCREENING = "tacit_screening_total"
    EVENTS = "tacit_events"
    DEAD_LETTERS = "tacit_dead_letters"
    STREAM_LAG = "tacit_stream_lag_records"
    OLDEST_QUEUED = "tacit_oldest_queued_age_seconds"
    SCRAPE_ERRORS = "tacit_scrape_errors_total"


class Series(NamedTuple):
    """What a series says."""

    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    meaning: str


SERIES: dict[SeriesName, Series] = {
    SeriesName.HTTP_REQUESTS: Series(
        "counter", ("route", "method", "status"), "Requests answered, by route template."
    ),
    SeriesName.HTTP_SECONDS: Series(
        "histogram", ("route", "method"), "Seconds from a request's headers to its whole answer."
    ),
    SeriesName.FEEDBACK_EVENTS: Series(
        "counter", ("outcome",), "Events sent to the feedback API, by what they were answered."
    ),
    SeriesName.FEEDBACK_REJECTED: Series(
        "counter", ("reason",), "Events and requests the feedback API refused, by type of error."
    ),
    SeriesName.SCREENING: Series(
        "counter", ("policy", "status", "reason"), "Judgements of screening, ever."
    ),
    SeriesName.EVENTS: Series("gauge", ("policy", "status"), "Events that have the status now."),
    SeriesName.DEAD_LETTERS: Series("gauge", (), "Dead letters kept now."),
    SeriesName.STREAM_LAG: Series(
        "gauge", ("topic", "partition"), "Records in the stream that screening has not read."
    ),
    SeriesName.OLDEST_QUEUED: Series(
        "gauge", (), "Seconds that the oldest unread feedback has waited, since first seen here."
    ),
    SeriesName.SCRAPE_ERRORS: Series(
        "counter", ("part",), "Scrapes that could not read the database or the stream."
    ),
}


def counter(name: SeriesName, registry: CollectorRegistry) -> Counter:
    """The counter called ``name``, with its labels and meaning from ``SERIES``."""
    return Counter(name.value, SERIES[name].meaning, SERIES[name].labels, registry=registry)


class IngestCounters:
    """Counts what the feedback API answers; about a microsecond a call, safe between threads."""

    def __init__(self, registry: CollectorRegistry) -> None:
        events = counter(SeriesName.FEEDBACK_EVENTS, registry)
        rejected = counter(SeriesName.FEEDBACK_REJECTED, registry)
        # Made beforehand: a series that starts at zero shows its first increase.
        self._events = {name: events.labels(name) for name in (*OUTCOMES, OTHER)}
        self._rejected = {name: rejected.labels(name) for name in (*_error_names(), OTHER)}

    def count_events(self, outcome: str, n: int = 1) -> None:
        """``n`` events were answered with ``outcome``: one of ``OUTCOMES``, else ``other``."""
        self._events.get(outcome, self._events[OTHER]).inc(n)

    def count_rejected(self, reason: str, n: int = 1) -> None:
        """``n`` refusals for ``reason``: the class name of a TacitError, else ``other``.

        Counts the reason alone: refused events are also counted with
        ``count_events("rejected", n)``, and a request refused as a whole has no events.
        """
        self._rejected.get(reason, self._rejected[OTHER]).inc(n)


class HttpMetrics:
    """Counts and times requests."""

    def __init__(self, registry: CollectorRegistry) -> None:
        name = SeriesName.HTTP_SECONDS
        self._requests = counter(SeriesName.HTTP_REQUESTS, registry)
        self._seconds = Histogram(
            name.value,
            SERIES[name].meaning,
            SERIES[name].labels,
            registry=registry,
            buckets=_BUCKETS_S,
        )
        # Finding a child by its labels costs more than counting does.
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        """One request was answered."""
        found = self._children.get((route, method, status))
        if found is None:
            found = (
                self._requests.labels(route, method, str(status)),
                self._seconds.labels(route, method),
            )
            self._children[route, method, status] = found
        found[0].inc()
        found[1].observe(seconds)


class MetricsMiddleware:
    """ASGI middleware that tells ``metrics`` of each HTTP request.

    A request that ends in an exception counts as 500, which is what the server answers; one that
    ends without an answer, because its sender went away, counts as 499.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: HttpMetrics,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_at, status = self._clock(), 499

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except ClientDisconnect:
            raise
        except Exception:
            status = 500
            raise
        finally:
            self._metrics.observe(
                _route_of(scope), _method_of(scope), status, self._clock() - started_at
            )


def _route_of(scope: Scope) -> str:
    # Routing leaves the route in the scope; its template has no value a caller chose.
    return getattr(scope.get("route"), "path", None) or UNMATCHED


def _method_of(scope: Scope) -> str:
    method: str = scope["method"]
    return method if method in _METHODS else OTHER


def _error_names(root: type[TacitError] = TacitError) -> Iterator[str]:
    for error in root.__subclasses__():
        yield error.__name__
        yield from _error_names(error)
