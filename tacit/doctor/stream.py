"""Can events be made durable: the embedded stream's file, or Kafka and its topics?"""

import os
from collections.abc import Iterator
from importlib.util import find_spec

from collector.ingest import feedback_topic, interactions_topic
from tacit.config import KafkaSettings, Settings
from tacit.doctor.findings import Finding, fail, ok, warn
from tacit.doctor.home import nearest_folder

AREA = "stream"
_BOOTSTRAP_S = 5.0


def check_stream(settings: Settings) -> Iterator[Finding]:
    """The stream that ``collector.stream`` names."""
    if settings.collector.stream == "embedded":
        yield _embedded(settings)
    elif find_spec("kafka") is None:
        yield fail(AREA, "Kafka without its client", "pip install 'tacit[kafka]'")
    else:
        yield from _kafka(settings)


def _embedded(settings: Settings) -> Finding:
    path = settings.home.resolve() / "stream.db"
    place = nearest_folder(path)
    if os.access(place, os.W_OK):
        return ok(AREA, f"embedded, in {path}")
    return fail(AREA, f"{place} cannot be written", "Give it to the user of the service.")


def _kafka(settings: Settings) -> Iterator[Finding]:
    # Not above: kafka-python is an extra.
    from collector.streams.kafka_connection import KafkaConnection

    kafka = settings.collector.kafka
    limit = min(kafka.bootstrap_timeout_s, _BOOTSTRAP_S)
    admin = KafkaConnection(kafka.model_copy(update={"bootstrap_timeout_s": limit})).admin()
    try:
        topics = {topic["name"]: topic for topic in admin.describe_topics()}
    finally:
        admin.close()
    yield ok(AREA, f"Kafka answers at {kafka.bootstrap_servers}")
    for name in (feedback_topic(settings), interactions_topic(settings)):
        yield _topic(name, topics.get(name), kafka)


def _topic(name: str, described: dict[str, object] | None, kafka: KafkaSettings) -> Finding:
    if described is None:
        return warn(
            AREA,
            f"no topic {name}",
            f"It is made at its first use with {kafka.num_partitions} partitions, "
            f"{kafka.replication_factor} replicas; that takes the right to create topics.",
        )
    partitions = described["partitions"]
    assert isinstance(partitions, list)
    return ok(AREA, f"topic {name} has {len(partitions)} partitions")
