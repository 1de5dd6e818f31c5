"""What benchmarks leave behind: a JSON object on standard output, a row in RESULTS.md."""

import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")
DETAILS = Path(__file__).parents[1] / "docs" / "results"


def report(name: str, figures: Mapping[str, float | bool | str | None]) -> None:
    """Append a row to ``RESULTS.md`` and print ``figures`` as the last line; None is unknown."""
    text = "; ".join(
        f"{key} {_short(value)}" for key, value in figures.items() if value is not None
    )
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    with RESULTS.open("a") as file:
        file.write(f"| {datetime.now(UTC):%Y-%m-%d} | {name} | {machine} | {text} |\n")
    print(json.dumps(figures))


def _short(value: float | bool | str) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
