"""Ray, joined or started; what all stages that work on it share.

``connect`` joins the cluster named by ``RAY_ADDRESS``, or starts Ray on this machine.
"""

import logging
import os
from typing import Any

from tacit.errors import PlacementError

# Read when Ray is imported or started.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray.exceptions import (
    ActorPlacementGroupRemoved,
    ActorUnschedulableError,
    GetTimeoutError,
    NodeDiedError,
    ObjectLostError,
    RayActorError,
    WorkerCrashedError,
)

NAMESPACE = "tacit"
OBJECT_STORE_BYTES = 256 * 1024 * 1024
"""For a Ray of our own: events and metrics are all that passes through it."""

LOST = (
    RayActorError,
    NodeDiedError,
    WorkerCrashedError,
    ObjectLostError,
    ActorPlacementGroupRemoved,
    ActorUnschedulableError,
    GetTimeoutError,
)
"""How Ray says that a worker, or the whole node it was on, is gone."""


def connect(*, local_cpus: int | None = None) -> bool:
    """Have Ray running; returns whether it was started here and so is ours to stop.

    ``local_cpus`` starts it on this machine with that many CPUs to hand out, however many there
    are, even where RAY_ADDRESS names a cluster.
    Raises PlacementError when the cluster at ``RAY_ADDRESS`` cannot be reached.
    """
    if ray.is_initialized():
        return False
    address = None if local_cpus else os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"address": address}
    if not address:
        options = {
            "address": "local",
            "num_cpus": local_cpus or os.cpu_count() or 1,
            "object_store_memory": OBJECT_STORE_BYTES,
            "include_dashboard": False,
        }
    try:
        ray.init(namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, RuntimeError) as error:
        raise PlacementError(
            f"a Ray cluster at {address}" if address else "Ray to start on this machine",
            got=str(error),
            mend="Start the cluster, or unset RAY_ADDRESS to run Ray on this machine.",
        ) from error
    return not address
