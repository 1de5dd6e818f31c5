"""Every area examined, one after the other."""

from collections.abc import Iterator

from tacit.config import Settings
from tacit.doctor.compute import check_ray, check_torch
from tacit.doctor.database import check_database
from tacit.doctor.engine import check_engine
from tacit.doctor.findings import Check, Finding, ask
from tacit.doctor.gate import check_gate
from tacit.doctor.home import check_home
from tacit.doctor.keys import check_keys
from tacit.doctor.ports import check_ports
from tacit.doctor.reward import check_model, check_reward
from tacit.doctor.stream import check_stream
from tacit.doctor.tracking import check_tracking

TIMEOUT_S = 30.0
"""For one area. Connections have shorter limits of their own; importing torch may take its time."""

AREAS: dict[str, Check] = {
    "home": check_home,
    "keys": check_keys,
    "ports": check_ports,
    "database": check_database,
    "stream": check_stream,
    "mlflow": check_tracking,
    "ray": check_ray,
    "torch": check_torch,
    "model": check_model,
    "reward": check_reward,
    "engine": check_engine,
    "gate": check_gate,
}


def examine(settings: Settings, *, timeout_s: float = TIMEOUT_S) -> Iterator[Finding]:
    """Findings in the order of ``AREAS``, each area for ``timeout_s`` at most."""
    for area, check in AREAS.items():
        yield from ask(area, check, settings, timeout_s=timeout_s)
