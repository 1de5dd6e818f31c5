"""What the Kafka stream adds to a bare producer.

    python -m benchmarks.kafka_append HOST:PORT

Appends batches of 100 values of 1 KB, once with kafka-python's producer alone (the same settings;
flush and get after each batch), once through ``KafkaStream.append``, once through it from four
threads. Median of three rounds in one run;
``append_over_bare`` is to stay at 0.85 or more. Makes topics named ``bench-…`` and deletes them.
"""

import os
import statistics
import sys
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from kafka import KafkaAdminClient, KafkaProducer

from benchmarks.results import report
from collector.streams.kafka import KafkaStream
from collector.streams.kafka_connection import KafkaConnection
from tacit.config import KafkaSettings

NUM_BATCHES = 60
BATCH = 100
ROUNDS = 3
NUM_THREADS = 4
Batch = list[tuple[str, bytes]]


def _batches() -> list[Batch]:
    value = os.urandom(512).hex().encode()
    return [
        [(f"u-{(number * BATCH + i) % 997}", value) for i in range(BATCH)]
        for number in range(NUM_BATCHES)
    ]


def _bare(producer: KafkaProducer, topic: str) -> None:
    for batch in _batches():
        sent = [producer.send(topic, key=key.encode(), value=value) for key, value in batch]
        producer.flush()
        for future in sent:
            future.get(timeout=30)


def _append(stream: KafkaStream, topic: str) -> None:
    for batch in _batches():
        stream.append(topic, batch)


def _append_in_threads(stream: KafkaStream, topic: str) -> None:
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        list(pool.map(lambda batch: stream.append(topic, batch), _batches()))


def _per_s(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return NUM_BATCHES * BATCH / (time.perf_counter() - started)


def main() -> None:
    """Measure, print, keep."""
    (address,) = sys.argv[1:]
    topic = f"bench-{uuid.uuid4().hex}"
    settings = KafkaSettings(bootstrap_servers=address)
    stream, producer = KafkaStream(settings), KafkaConnection(settings).producer()
    stream.append(topic, [("u", b"warm")])
    producer.send(topic, key=b"u", value=b"warm").get(timeout=30)
    ways = {
        "bare_per_s": lambda: _bare(producer, topic),
        "append_per_s": lambda: _append(stream, topic),
        "append_threads_per_s": lambda: _append_in_threads(stream, topic),
    }
    rounds = [{name: _per_s(work) for name, work in ways.items()} for _ in range(ROUNDS)]
    producer.close()
    stream.close()
    admin = KafkaAdminClient(bootstrap_servers=address)
    admin.delete_topics([topic])
    admin.close()
    figures: dict[str, float | bool | str] = {
        name: statistics.median(row[name] for row in rounds) for name in ways
    }
    ratios = [row["append_per_s"] / row["bare_per_s"] for row in rounds]
    report("kafka_append", {**figures, "append_over_bare": statistics.median(ratios)})


if __name__ == "__main__":
    main()
