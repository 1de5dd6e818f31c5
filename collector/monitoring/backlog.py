"""What waits: events by status, judgements, dead letters and the stream's lag, read at each scrape.

In: the database and the stream. Out: Prometheus families. A part that does not answer in time has
no series in that scrape, since an old number would pass for a present one; what is counted in the
process comes all the same.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from sqlalchemy import func, select

from collector.ingest import feedback_topic, interactions_topic
from collector.monitoring.lag import Lag, WaitingTime
from collector.monitoring.metrics import OTHER, SERIES, SeriesName, counter
from collector.monitoring.probes import Probe
from collector.streams import Stream
from collector.tables import DeadLetterRow, EventRow, ScreeningCounterRow
from tacit.config import Settings
from tacit.database import Database

logger = logging.getLogger(__name__)

TIMEOUT_S = 2.0
CACHE_S = 1.0
EVENTS_CACHE_S = 10.0
_EVENTS_COST = 50
"""Counting the events again waits this many times as long as counting took."""

Clock = Callable[[], float]


class Backlog:
    """Both parts of a scrape, each with a time limit; not for several event loops at once."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        stream: Stream,
        registry: CollectorRegistry,
        *,
        clock: Clock = time.monotonic,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._timeout_s = timeout_s
        self._errors = counter(SeriesName.SCRAPE_ERRORS, registry)
        readers: Mapping[str, Callable[[], list[Metric]]] = {
            "database": _DatabasePart(settings, database, clock).read,
            "stream": _StreamPart(settings, database, stream, clock).read,
        }
        self._probes = [Probe(name, _Cached(read, clock)) for name, read in readers.items()]
        for name in readers:
            self._errors.labels(name)

    async def families(self) -> list[Metric]:
        """The series of the parts that answered; the others are counted as scrape errors."""
        parts = await asyncio.gather(*(self._ask(probe) for probe in self._probes))
        return [family for part in parts for family in part]

    async def _ask(self, probe: Probe[list[Metric]]) -> list[Metric]:
        try:
            return await probe.ask(timeout_s=self._timeout_s)
        except Exception as error:
            # The edge of the process: the series counted in memory are wanted most when all else
            # is broken.
            logger.warning("a scrape without the %s: %s", probe.name, error)
            self._errors.labels(probe.name).inc()
            return []


class _Cached:
    """Asks again once the last answer is ``CACHE_S`` old, however often it is called."""

    def __init__(self, read: Callable[[], list[Metric]], clock: Clock) -> None:
        self._read = read
        self._clock = clock
        self._found: list[Metric] = []
        self._until = float("-inf")

    def __call__(self) -> list[Metric]:
        if self._clock() >= self._until:
            self._found = self._read()
            self._until = self._clock() + CACHE_S
        return self._found


class _DatabasePart:
    def __init__(self, settings: Settings, database: Database, clock: Clock) -> None:
        self._policy = settings.policy
        self._database = database
        self._clock = clock
        self._events: Metric | None = None
        self._events_until = 0.0

    def read(self) -> list[Metric]:
        return [self._judgements(), self._dead_letters(), self._events_by_status()]

    def _judgements(self) -> Metric:
        row = ScreeningCounterRow
        with self._database.reader() as session:
            found = session.execute(select(row.policy, row.status, row.reason, row.num_events))
            counted = self._of_known_policies(found)
        return _family(SeriesName.SCREENING, counted)

    def _dead_letters(self) -> Metric:
        with self._database.reader() as session:
            number = session.scalar(select(func.count()).select_from(DeadLetterRow)) or 0
        return _family(SeriesName.DEAD_LETTERS, {(): number})

    def _events_by_status(self) -> Metric:
        """Counted anew only now and then: it walks an index over all events."""
        started_at = self._clock()
        if self._events is None or started_at >= self._events_until:
            self._events = _family(SeriesName.EVENTS, self._count_events())
            ended_at = self._clock()
            wait_s = max(EVENTS_CACHE_S, (ended_at - started_at) * _EVENTS_COST)
            self._events_until = ended_at + wait_s
        return self._events

    def _count_events(self) -> Counter[tuple[str, ...]]:
        row = EventRow
        query = select(row.policy, row.status, func.count()).group_by(row.policy, row.status)
        with self._database.reader() as session:
            return self._of_known_policies(session.execute(query))

    def _of_known_policies(self, rows: Iterable[Any]) -> Counter[tuple[str, ...]]:
        """Rows are policy, further labels, number."""
        # Who produces to the stream directly may name any policy line.
        counted: Counter[tuple[str, ...]] = Counter()
        for policy, *labels, number in rows:
            known = self._policy if policy == self._policy else OTHER
            counted[known, *labels] += number
        return counted


class _StreamPart:
    def __init__(
        self, settings: Settings, database: Database, stream: Stream, clock: Clock
    ) -> None:
        self._lags = [
            Lag(database, stream, topic)
            for topic in (feedback_topic(settings), interactions_topic(settings))
        ]
        self._waiting = WaitingTime(clock)

    def read(self) -> list[Metric]:
        feedback, interactions = (lag.read() for lag in self._lags)
        records: dict[tuple[str, ...], float] = {
            (lag.topic, str(partition)): place.records
            for lag, places in zip(self._lags, (feedback, interactions), strict=True)
            for partition, place in places.items()
        }
        age_s = self._waiting.update(feedback)
        return [
            _family(SeriesName.STREAM_LAG, records),
            _family(SeriesName.OLDEST_QUEUED, {(): age_s}),
        ]


def _family(name: SeriesName, values: Mapping[tuple[str, ...], float]) -> Metric:
    kind, labels, meaning = SERIES[name]
    make = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
    family = make(name.value, meaning, labels=labels)
    for row, value in sorted(values.items()):
        family.add_metric(row, value)
    return family
