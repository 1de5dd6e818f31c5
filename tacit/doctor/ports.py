"""Are the ports free, or taken by Tacit itself?"""

import errno
import socket
from collections import Counter
from collections.abc import Iterator

import httpx

from tacit.config import Settings
from tacit.doctor.findings import Finding, fail, ok

AREA = "ports"
_TIMEOUT_S = 2.0
_HEALTHY = {
    "control": ("/healthz", '"ok"'),
    "serving": ("/healthz", '"ok"'),
    "mlflow": ("/health", "OK"),
}


def check_ports(settings: Settings) -> Iterator[Finding]:
    """One line for each port that ``tacit up`` would listen on."""
    places = _places(settings)
    shared = Counter(port for _, _, port in places.values() if port)
    for role, (name, host, port) in places.items():
        if shared[port] > 1:
            yield fail(AREA, f"{name} is {port}, and so is another", "Give each its own.")
        else:
            yield _port(role, name, host, port)


def taken_ports(settings: Settings) -> list[str]:
    """``setting port`` of those that ``tacit up`` needs and somebody listens on."""
    return [
        f"{name} {port}"
        for name, host, port in _places(settings).values()
        if (refused := _bind(host, port)) is not None and refused.errno == errno.EADDRINUSE
    ]


def _places(settings: Settings) -> dict[str, tuple[str, str, int]]:
    """Setting, host and port of each process that listens."""
    places = {
        "control": ("collector.port", settings.collector.host, settings.collector.port),
        "serving": ("deploy.port", settings.deploy.host, settings.deploy.port),
    }
    if settings.tracking.uri is None:
        places["mlflow"] = ("tracking.port", settings.tracking.host, settings.tracking.port)
    return places


def _port(role: str, name: str, host: str, port: int) -> Finding:
    refused = _bind(host, port)
    if refused is None:
        return ok(AREA, f"{name} {port} is free")
    if refused.errno != errno.EADDRINUSE:
        return fail(AREA, f"{name}: {host}:{port}: {refused.strerror}", "Set another host or port.")
    path, sign = _HEALTHY[role]
    try:
        answer = httpx.get(f"http://{host}:{port}{path}", timeout=_TIMEOUT_S)
        ours = answer.is_success and sign in answer.text
    except httpx.HTTPError:
        ours = False
    if ours:
        return ok(AREA, f"{name} {port} is taken, by what answers as {role} does")
    return fail(AREA, f"{name} {port} is taken by another program", f"Stop it, or set {name}.")


def _bind(host: str, port: int) -> OSError | None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            # As the server does: a port whose last connections are only ending is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return error
    return None
