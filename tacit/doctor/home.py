"""Is ``home`` writable, and is there room on its disk?"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tacit.config import Settings
from tacit.doctor.findings import Finding, fail, ok, warn

AREA = "home"
_ROOMY = 4
"""With less than so many times the limit free, the first checkpoints may use it up."""


def check_home(settings: Settings) -> Iterator[Finding]:
    """``home``, or the folder it would be made in."""
    home = settings.home.resolve()
    folder = nearest_folder(home)
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        yield fail(
            AREA,
            f"{folder} is not a folder that this user can write to",
            f"Give the user of the service {home}, or set home to another folder.",
        )
        return
    yield ok(AREA, f"{home} is writable" if folder == home else f"{home} is made at the start")
    yield _room(folder, settings.collector.min_free_bytes)


def nearest_folder(path: Path) -> Path:
    """``path``, or the nearest thing above it that exists."""
    return next(place for place in (path, *path.parents) if place.exists())


def _room(folder: Path, limit: int) -> Finding:
    free = shutil.disk_usage(folder).free
    shown = f"{free / 2**30:.1f} GiB free, {limit / 2**30:.2g} GiB needed to acknowledge events"
    if free < limit:
        return fail(AREA, shown, "Make room, or set home to a larger disk.")
    if free < _ROOMY * limit:
        return warn(AREA, shown, "Checkpoints and runs grow: make room before the disk is full.")
    return ok(AREA, shown)
