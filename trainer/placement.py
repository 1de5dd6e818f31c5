"""Getting room for workers from Ray, or a clear error; Ray itself would wait for ever."""

import logging
import os
from dataclasses import dataclass

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from tacit.config import TrainerSettings
from tacit.errors import PlacementError

logger = logging.getLogger(__name__)


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
