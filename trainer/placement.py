"""Getting room for workers from Ray, or a clear error; Ray itself would wait for ever.

``connect`` joins the cluster named by ``RAY_ADDRESS``, or starts Ray on this machine.
"""

import logging
import os
from dataclasses import dataclass
from typing import Any

from tacit.config import TrainerSettings
from tacit.errors import PlacementError

# Read when Ray is imported or started.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

logger = logging.getLogger(__name__)

NAMESPACE = "tacit"
OBJECT_STORE_BYTES = 256 * 1024 * 1024
"""For a Ray of our own: events and metrics are all that passes through it."""


@dataclass(frozen=True)
class Request:
    """What an update asks the cluster for."""

    num_workers: int
    cpus_per_worker: float
    gpus_per_worker: float

    def __str__(self) -> str:
        each = f"{self.cpus_per_worker:g} CPUs"
        if self.gpus_per_worker:
            each += f" and {self.gpus_per_worker:g} GPUs"
        return f"room for {self.num_workers} workers with {each} each"

    @property
    def totals(self) -> dict[str, float]:
        """Amount of each resource over all workers; those not asked for are left out."""
        wanted = {"CPU": self.cpus_per_worker, "GPU": self.gpus_per_worker}
        return {name: amount * self.num_workers for name, amount in wanted.items() if amount > 0}

    @property
    def bundles(self) -> list[dict[str, float]]:
        """One bundle a worker, in Ray's form."""
        share = {name: amount / self.num_workers for name, amount in self.totals.items()}
        return [dict(share) for _ in range(self.num_workers)]


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


def resolve_request(settings: TrainerSettings) -> Request:
    """The request of ``settings``; without ``num_workers`` two workers where they fit, else one."""
    return Request(
        num_workers=settings.num_workers or _default_workers(settings),
        cpus_per_worker=settings.cpus_per_worker,
        gpus_per_worker=settings.gpus_per_worker,
    )


def _default_workers(settings: TrainerSettings) -> int:
    total = ray.cluster_resources()
    fits = int(total.get("CPU", 0) // settings.cpus_per_worker)
    if settings.gpus_per_worker > 0:
        fits = min(fits, int(total.get("GPU", 0) // settings.gpus_per_worker))
    return max(1, min(2, fits))


def place(request: Request, *, timeout_s: float) -> PlacementGroup:
    """Reserve room for the workers, waiting at most ``timeout_s``.

    A cluster that cannot grow and is too small is refused at once. Raises PlacementError naming
    what was asked for and what the cluster has.
    """
    total = ray.cluster_resources()
    too_small = any(total.get(name, 0) < amount for name, amount in request.totals.items())
    # A cluster of one's own can have an autoscaler; Ray on this machine never gets more CPUs.
    if too_small and not os.environ.get("RAY_ADDRESS"):
        raise _no_room(request, f"the cluster has {_describe(total, request)} in total")
    group = placement_group(request.bundles, strategy="PACK")
    if group.wait(timeout_seconds=timeout_s):
        return group
    available = ray.available_resources()
    remove_placement_group(group)
    raise _no_room(
        request,
        f"after {timeout_s:g} s the cluster has {_describe(total, request)} in total, "
        f"{_describe(available, request)} available",
    )


def _describe(resources: dict[str, float], request: Request) -> str:
    return " and ".join(f"{resources.get(name, 0):g} {name}s" for name in request.totals)


def _no_room(request: Request, got: str) -> PlacementError:
    return PlacementError(
        str(request),
        got=got,
        mend="Lower trainer.num_workers or trainer.cpus_per_worker, stop what else uses the "
        "cluster, or add nodes.",
    )
