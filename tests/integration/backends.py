"""What a service of more than one machine stands on, to be taken away and to be asked itself."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psycopg
from kafka import KafkaConsumer, TopicPartition
from ray.cluster_utils import Cluster

from tests.collector.brokers import Broker
from tests.conftest import POSTGRES_BINARIES, as_postgres


class Backends(NamedTuple):
    """What a service of more than one machine stands on."""

    broker: Broker
    state_url: str
    nodes: Cluster

    @property
    def environment(self) -> dict[str, str]:
        """How a service is told where they are."""
        return {
            "TACIT_COLLECTOR__KAFKA__BOOTSTRAP_SERVERS": self.broker.address,
            "TACIT_DATABASE_URL": self.state_url,
            "RAY_ADDRESS": self.nodes.address,
        }


@contextmanager
def postgres_away(url: str) -> Iterator[None]:
    """Kill the server behind ``url`` for as long as the block runs."""
    [data] = column(url, "SHOW data_directory")
    control = [*as_postgres(), POSTGRES_BINARIES / "pg_ctl", "-D", data, "-w", "-m", "immediate"]
    subprocess.run([*control, "stop"], check=True, stdout=subprocess.DEVNULL, cwd="/")
    yield
    # Other than `start` it takes the options that the server had.
    again = [*control, "-l", Path(data).parent / "log", "restart"]
    subprocess.run(again, check=True, capture_output=True, cwd="/")


def column(url: str, query: str) -> list[str]:
    """The first column of a query, asked of PostgreSQL itself."""
    with psycopg.connect(url) as connection:
        return [row[0] for row in connection.execute(query.encode())]


def num_records(broker: Broker, topic: str) -> int:
    """How many records a topic holds, asked of Kafka itself."""
    consumer = KafkaConsumer(bootstrap_servers=broker.address)
    places = [TopicPartition(topic, n) for n in consumer.partitions_for_topic(topic) or ()]
    ends, starts = consumer.end_offsets(places), consumer.beginning_offsets(places)
    consumer.close()
    return sum(ends[place] - starts[place] for place in places)
