"""Is there something to train on: Ray, and the devices the settings ask for?"""

import ipaddress
import os
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

from tacit.config import Settings
from tacit.doctor.findings import Finding, fail, ok, warn

_CONNECT_S = 3.0
_RAY, _TORCH = "ray", "torch"


def check_ray(settings: Settings) -> Iterator[Finding]:
    """The cluster at RAY_ADDRESS, or this machine."""
    address = os.environ.get("RAY_ADDRESS", "")
    if not address:
        yield _local_cpus(settings)
    elif address == "auto":
        yield _joined(address, None)
    else:
        yield from _cluster(address)


def _local_cpus(settings: Settings) -> Finding:
    trainer, cpus = settings.trainer, os.cpu_count() or 1
    wanted = (trainer.num_workers or 1) * trainer.cpus_per_worker
    found = f"started on this machine, {cpus} CPUs for training"
    if wanted > cpus:
        return fail(
            _RAY,
            f"{found}, and trainer.num_workers x cpus_per_worker asks for {wanted:g}",
            "Lower one of them, or set RAY_ADDRESS to a cluster.",
        )
    return ok(_RAY, found)


def _cluster(address: str) -> Iterator[Finding]:
    place = urlsplit(address if "://" in address else f"gcs://{address}")
    try:
        host, port = place.hostname, place.port
    except ValueError:
        host = port = None
    if not host or not port:
        yield fail(_RAY, f"RAY_ADDRESS is {address}", "Set it to host:port, such as head:6379.")
        return
    try:
        socket.create_connection((host, port), timeout=_CONNECT_S).close()
    except OSError as error:
        yield fail(
            _RAY,
            f"nothing listens at RAY_ADDRESS, {address}: {error}",
            "Start the cluster (`ray start --head`), or unset RAY_ADDRESS to use this machine.",
        )
        return
    yield ok(_RAY, f"{address} takes connections")
    if place.scheme == "ray":
        yield warn(
            _RAY,
            "ray:// is Ray Client, which Tacit is not tested with",
            "Make this machine a node and set RAY_ADDRESS to host:port of the head.",
        )
    else:
        yield _joined(address, address)


def _joined(address: str, wanted: str | None) -> Finding:
    from ray._private.services import find_gcs_addresses

    here = sorted(find_gcs_addresses())
    joined = [found for found in here if wanted is None or _is_same(found, wanted)]
    if joined:
        return ok(_RAY, f"this machine is a node of {', '.join(joined)}")
    return warn(
        _RAY,
        f"this machine is no node of {address}, and a driver needs one beside it",
        f"ray start --num-cpus=0 --address={wanted or 'HEAD:6379'}",
    )


def _is_same(found: str, wanted: str) -> bool:
    """Whether two ``host:port`` are one; a head on this machine goes by loopback addresses too."""
    (host, _, port), (wanted_host, _, wanted_port) = found.rpartition(":"), wanted.rpartition(":")
    if port != wanted_port:
        return False
    address = socket.gethostbyname(wanted_host)
    return ipaddress.ip_address(address).is_loopback or socket.gethostbyname(host) == address


def check_torch(settings: Settings) -> Iterator[Finding]:
    """GPUs where the settings ask for them."""
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = ", ".join(sorted({torch.cuda.get_device_name(i) for i in range(gpus)}))
    has = f"torch {torch.__version__}, {gpus} x {names}" if gpus else f"torch {torch.__version__}"
    yield ok(_TORCH, has if gpus else f"{has}, on CPUs")
    wants = {
        "deploy.device": settings.deploy.engine == "transformers"
        and settings.deploy.device.startswith("cuda"),
    }
    if not os.environ.get("RAY_ADDRESS"):
        wants["trainer.gpus_per_worker"] = settings.trainer.gpus_per_worker > 0
        wants["evaluator.gpus_per_worker"] = settings.evaluator.gpus_per_worker > 0
    for name in (name for name, wanted in wants.items() if wanted and not gpus):
        yield fail(
            _TORCH,
            f"{name} asks for a GPU, and torch sees none",
            "Install a CUDA build of torch and the driver, or set it to CPU.",
        )
