"""Settings of the demo: a home of its own and ports nobody uses, so that it disturbs nothing."""

import socket
from pathlib import Path

from tacit.config import Settings, load_settings
from tacit.demo.world import World

REHEARSAL = {
    "helpdesk": [
        "trainer.replay.share=0.5",
        "trainer.kl_weight=1",
        "trainer.lora.train_embeddings=true",
    ],
    "clinc150": [
        "trainer.replay.share=0.7",
        "trainer.kl_weight=4",
        "trainer.lora.train_embeddings=true",
    ],
}
"""More than the defaults: a policy this small learns a third of its world anew in one batch.

Real utterances of 150 intents overlap more than generated ones: with a share of 0.3 the old intents
lose seven points, and the gate turns the candidate away.
"""


def demo_settings(world: World, home: Path) -> Settings:
    """The defaults, but for places, for when a cycle starts and for how much is rehearsed."""
    control, serving, mlflow = _free_ports(3)
    return load_settings(
        home=home,
        overrides=[
            f"collector.port={control}",
            f"deploy.port={serving}",
            f"tracking.port={mlflow}",
            "loop.min_events=200",
            f"loop.max_events={max(4_096, len(world.new_stream))}",
            *REHEARSAL.get(world.name, REHEARSAL["helpdesk"]),
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
