"""Settings of the demo: a home of its own and ports nobody uses, so that it disturbs nothing."""

import socket
from pathlib import Path

from tacit.config import Settings, load_settings
from tacit.demo.world import World


def demo_settings(world: World, home: Path) -> Settings:
    """What a service of this policy gets by itself, but for places and for when a cycle starts."""
    control, serving, mlflow = _free_ports(3)
    return load_settings(
        home=home,
        profile="small",
        overrides=[
            f"collector.port={control}",
            f"deploy.port={serving}",
            f"tracking.port={mlflow}",
            "loop.min_events=200",
            f"loop.max_events={max(4_096, len(world.new_stream))}",
        ],
    )


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
