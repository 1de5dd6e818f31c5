"""A Ray cluster of several nodes on this machine, and what runs on each of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
from ray.cluster_utils import Cluster

QUICK = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 4,
}
"""Ray otherwise takes half a minute to notice that a node is gone."""
_STORE_BYTES = 80 * 1024 * 1024


@contextmanager
def started_nodes() -> Iterator[Cluster]:
    """A head node without CPUs, where the driver is, and two nodes with one CPU each."""
    head = {
        "num_cpus": 0,
        "object_store_memory": _STORE_BYTES,
        "_system_config": QUICK,
        "include_dashboard": False,
    }
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(2):
            add_node(cluster)
        yield cluster
    finally:
        cluster.shutdown()


def add_node(cluster: Cluster) -> None:
    """One more node with one CPU."""
    cluster.add_node(num_cpus=1, object_store_memory=_STORE_BYTES)


def workers_on(node: Any) -> list[str]:
    """Names of the actors whose processes a node's raylet has started."""
    [raylet] = node.all_processes["raylet"]
    titles = [" ".join(child.cmdline()) for child in psutil.Process(raylet.process.pid).children()]
    return [title for title in titles if title.startswith("ray::")]
