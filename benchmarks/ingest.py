"""How fast feedback gets in, beside its peers, in one run.

Starts everything itself: the control process as ``tacit up`` starts it, an MLflow server, a Kafka
broker. Events are 1 KB. Rounds of all kinds take turns, so that a noisy machine is noisy for all;
figures are medians of rounds, and each comes with its rate. Prints one JSON object last.
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.load import Tally, closed_loop, paced
from benchmarks.peers import MlflowFeedback, bare_kafka, bare_sqlite
from benchmarks.results import report
from collector.consume import Consumer
from collector.ingest import Ingestor
from collector.parse import parse_event
from collector.streams import open_stream
from tacit.config import KafkaSettings, Settings, load_settings
from tacit.database import Database
from tacit.keys import KeyStore
from tacit.principal import Scope
from tacit.start import prepare
from tacit.supervisor import Supervisor
from tests.collector.brokers import Broker
from tests.conftest import free_port

CONNECTIONS = 16
BATCH = 100
EVENT_BYTES = 1_024
NUM_SUBJECTS = 997
_WORDS = "where is the parcel that i ordered on monday and was told would be here by now "
_EVENT = json.dumps(
    {
        "event_id": "%s",
        "policy": "default",
        "source": "helpdesk",
        "subject_id": "u-%03d",
        "occurred_at": "2026-01-02T03:04:05Z",
        "feedback": {"type": "correction", "completion": "please use the returns form " * 6},
        "interaction": {
            "prompt": [{"role": "user", "content": "%s %s"}],
            "completion": "your parcel is on its way and should be with you soon " * 3,
        },
    }
).encode()
_HEAD = (
    b"POST /v1/feedback HTTP/1.1\r\nHost: tacit\r\nAuthorization: Bearer %s\r\n"
    b"Content-Type: %s\r\nContent-Length: %d\r\n\r\n"
)


def events() -> Iterator[bytes]:
    """Corrections of 1 KB, each with an id and a prompt of its own, from 997 people."""
    bare_bytes = len(_EVENT % (b"i" * 32, 0, b"p" * 16, b""))
    prompt = (_WORDS * 20).encode()[: EVENT_BYTES - bare_bytes]
    for number in itertools.count():
        event_id = uuid.uuid4().hex.encode()
        yield _EVENT % (event_id, number % NUM_SUBJECTS, event_id[16:], prompt)


@dataclass(frozen=True)
class Service:
    """A running control process, and requests to it."""

    settings: Settings
    supervisor: Supervisor
    key: bytes

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return self.settings.collector.host, self.settings.collector.port

    @property
    def rss_mb(self) -> float:
        """Resident memory of the control process."""
        return psutil.Process(self.supervisor.pid("control")).memory_info().rss / 2**20

    def singles(self) -> Iterator[bytes]:
        """Requests of one event."""
        return (self._request(event, b"application/json") for event in events())

    def batches(self) -> Iterator[bytes]:
        """Requests of 100 events."""
        made = events()
        while True:
            body = b"\n".join(itertools.islice(made, BATCH))
            yield self._request(body, b"application/x-ndjson")

    def _request(self, body: bytes, kind: bytes) -> bytes:
        return _HEAD % (self.key, kind, len(body)) + body


@contextmanager
def running(folder: Path, **collector: object) -> Iterator[Service]:
    """The control process on ``folder``."""
    settings = load_settings(home=folder, collector={"port": free_port(), **collector})
    prepare(settings)
    database = Database(settings.resolved_database_url)
    key = KeyStore(database).create("bench", scopes={Scope.SEND}, source="helpdesk")
    database.dispose()
    with Supervisor(settings, roles=["control"]) as supervisor:
        supervisor.wait_ready()
        yield Service(settings, supervisor, key.encode())


@contextmanager
def mlflow_server(folder: Path) -> Iterator[MlflowFeedback]:
    """An MLflow server on SQLite as ``tacit up`` starts it."""
    settings = load_settings(home=folder, tracking={"port": free_port()})
    with Supervisor(settings, roles=["mlflow"]) as supervisor:
        supervisor.wait_ready()
        yield MlflowFeedback(settings.tracking_uri)


def single_per_s(service: Service, *, duration_s: float) -> float:
    """Acknowledged requests of one event."""
    return _all_taken(
        closed_loop(
            service.address, service.singles(), connections=CONNECTIONS, duration_s=duration_s
        )
    ).per_s


def batch_per_s(service: Service, *, duration_s: float) -> float:
    """Acknowledged events in batches of 100."""
    return (
        BATCH
        * _all_taken(
            closed_loop(
                service.address, service.batches(), connections=CONNECTIONS, duration_s=duration_s
            )
        ).per_s
    )


def p99_ms(service: Service, *, per_s: float, duration_s: float) -> float:
    """Latency of single events at a steady ``per_s``."""
    tally = paced(
        service.address,
        service.singles(),
        connections=4 * CONNECTIONS,
        duration_s=duration_s,
        per_s=per_s,
    )
    return _all_taken(tally).latency_ms(0.99)


def memory_growth(folder: Path, *, num_events: int) -> dict[str, float]:
    """Resident memory after ``num_events``, and that over what it was after 10,000."""
    with running(folder) as service:
        requests = service.batches()
        _send(service, requests, 10_000)
        before_mb = service.rss_mb
        _send(service, requests, num_events - 10_000)
        after_mb = service.rss_mb
    return {"rss_mb_after_1m": after_mb, "rss_over_10k": after_mb / before_mb}


def screened_per_s(folder: Path, *, num_events: int) -> float:
    """Events a second through all of screening, redaction among it."""
    settings = load_settings(home=folder)
    database = Database(settings.resolved_database_url)
    database.migrate()
    stream = open_stream(settings)
    made = events()
    with Ingestor(database, stream, settings) as ingestor:
        for _ in range(num_events // BATCH):
            ingestor.accept([parse_event(next(made)) for _ in range(BATCH)])
    started = time.perf_counter()
    num_screened = Consumer(database, stream, settings).drain()
    elapsed_s = time.perf_counter() - started
    stream.close()
    database.dispose()
    assert num_screened == num_events, f"expected {num_events} screened; got {num_screened}"
    return num_screened / elapsed_s


def measure(folder: Path, *, rounds: int, duration_s: float, num_events: int) -> dict[str, float]:
    """All figures; ``duration_s`` is that of one round of one kind."""
    seen: defaultdict[str, list[float]] = defaultdict(list)
    with ExitStack() as stack:
        broker = Broker(folder / "broker").start()
        stack.callback(broker.remove)
        kafka = KafkaSettings(bootstrap_servers=broker.address)
        mlflow = stack.enter_context(mlflow_server(folder / "mlflow"))
        embedded = stack.enter_context(running(folder / "embedded"))
        over_kafka = stack.enter_context(
            running(folder / "kafka", stream="kafka", kafka=kafka.model_dump())
        )
        in_flight = CONNECTIONS * BATCH
        kinds: dict[str, Callable[[], float]] = {
            "mlflow_per_s": lambda: mlflow.per_s(duration_s=duration_s),
            "single_per_s": lambda: single_per_s(embedded, duration_s=duration_s),
            "batch_per_s": lambda: batch_per_s(embedded, duration_s=duration_s),
            "bare_sqlite_per_s": lambda: bare_sqlite(
                folder / "bare.db", events(), batch=BATCH, duration_s=duration_s
            ),
            "kafka_per_s": lambda: batch_per_s(over_kafka, duration_s=duration_s),
            "bare_kafka_per_s": lambda: bare_kafka(
                kafka, events(), max_in_flight=in_flight, duration_s=duration_s
            ),
        }
        for number in range(rounds):
            for name, kind in kinds.items():
                seen[name].append(kind())
                print(f"round {number + 1}: {name} {seen[name][-1]:,.0f}", file=sys.stderr)
        rates = {name: statistics.median(values) for name, values in seen.items()}
        half = rates["single_per_s"] / 2
        p99 = statistics.median(
            p99_ms(embedded, per_s=half, duration_s=duration_s) for _ in range(rounds)
        )
    ratios = {
        "single_vs_mlflow": rates["single_per_s"] / rates["mlflow_per_s"],
        "batch_vs_mlflow": rates["batch_per_s"] / rates["mlflow_per_s"],
        "embedded_vs_bare": rates["batch_per_s"] / rates["bare_sqlite_per_s"],
        "kafka_vs_bare": rates["kafka_per_s"] / rates["bare_kafka_per_s"],
    }
    screened = screened_per_s(folder / "screening", num_events=10_000)
    memory = memory_growth(folder / "memory", num_events=num_events)
    return {**ratios, "screened_per_s": screened, "p99_ms_half_load": p99, **memory, **rates}


def main() -> None:
    """Measure, append a row to the results, print it."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--duration-s", type=float, default=6.0)
    options.add_argument("--num-events", type=int, default=1_000_000)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        figures = measure(
            Path(folder),
            rounds=chosen.rounds,
            duration_s=chosen.duration_s,
            num_events=chosen.num_events,
        )
    report("ingest", dict(figures))


def _all_taken(tally: Tally) -> Tally:
    assert set(tally.statuses) == {202}, f"expected 202 alone; got {dict(tally.statuses)}"
    return tally


def _send(service: Service, requests: Iterator[bytes], num_events: int) -> None:
    few = itertools.islice(requests, num_events // BATCH)
    _all_taken(closed_loop(service.address, few, connections=CONNECTIONS, duration_s=3_600))


if __name__ == "__main__":
    main()
