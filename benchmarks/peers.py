"""What ingestion is measured against: the least that could do the same, and the nearest peer.

bare SQLite   a script that inserts the same bytes, 100 a transaction, same synchronous setting
bare Kafka    kafka-python's producer with the same settings, nothing around it
MLflow        mlflow.log_feedback against an MLflow server on SQLite, from 16 threads
"""

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from collector.streams.kafka import KafkaStream
from tacit.config import KafkaSettings

NUM_THREADS = 16


def bare_sqlite(path: Path, events: Iterator[bytes], *, batch: int, duration_s: float) -> float:
    """Rows a second of a plain table with a plain row id."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY, value BLOB)")
    started, num_rows = time.perf_counter(), 0
    while time.perf_counter() - started < duration_s:
        rows = [(next(events),) for _ in range(batch)]
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO events (value) VALUES (?)", rows)
        connection.execute("COMMIT")
        num_rows += batch
    elapsed_s = time.perf_counter() - started
    connection.close()
    return num_rows / elapsed_s


def bare_kafka(
    settings: KafkaSettings, events: Iterator[bytes], *, max_in_flight: int, duration_s: float
) -> float:
    """Acknowledged records a second of a producer that never waits for one batch to send the next.

    ``max_in_flight`` records may be unacknowledged at once, as many as the collector's senders
    have.
    """
    stream = KafkaStream(settings)
    stream.append("bare", [("warm", b"up")])
    producer: Any = stream._open_producer("bare")
    started, num_acknowledged = time.perf_counter(), 0
    in_flight: deque[Any] = deque()
    while time.perf_counter() - started < duration_s:
        number = num_acknowledged + len(in_flight)
        key = b"helpdesk/u-%d" % (number % 997)
        in_flight.append(producer.send("bare", key=key, value=next(events)))
        if len(in_flight) >= max_in_flight:
            in_flight.popleft().get(timeout=30)
            num_acknowledged += 1
    while in_flight:
        in_flight.popleft().get(timeout=30)
        num_acknowledged += 1
    elapsed_s = time.perf_counter() - started
    stream.close()
    return num_acknowledged / elapsed_s


class MlflowFeedback:
    """``mlflow.log_feedback`` on one trace of a server at ``uri``."""

    def __init__(self, uri: str) -> None:
        import mlflow

        self._mlflow = mlflow
        mlflow.set_tracking_uri(uri)
        mlflow.set_experiment("ingest")
        with mlflow.start_span(name="answer") as span:
            span.set_inputs({"prompt": "where is my order"})
        mlflow.flush_trace_async_logging()
        self._trace_id = span.trace_id

    def per_s(self, *, duration_s: float) -> float:
        """Calls a second that returned, over all threads."""
        counts = [0] * NUM_THREADS
        deadline = time.perf_counter() + duration_s
        threads = [
            threading.Thread(target=self._log, args=(counts, number, deadline))
            for number in range(NUM_THREADS)
        ]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(counts) / (time.perf_counter() - started)

    def _log(self, counts: list[int], number: int, deadline: float) -> None:
        while time.perf_counter() < deadline:
            self._mlflow.log_feedback(
                trace_id=self._trace_id, name="correct", value=True, rationale="x" * 700
            )
            counts[number] += 1
