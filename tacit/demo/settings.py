"""Settings of the demo: a home of its own and ports nobody uses, so that it disturbs nothing."""

from pathlib import Path

from tacit.config import Settings, load_settings
from tacit.demo.world import World
from tacit.ports import free_port


def demo_settings(world: World, home: Path) -> Settings:
    """What a service of this policy gets by itself, but for places and for when a cycle starts."""
    control = free_port(number=3)
    serving, mlflow = control + 1, control + 2
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
