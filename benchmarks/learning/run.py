"""Runs cells in processes of one thread each, and keeps each as soon as it is finished."""

import logging
import os
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, as_completed
from functools import cache, partial
from pathlib import Path

from benchmarks.learning.cell import Cell, config_digest, run_cell
from benchmarks.learning.probes import Row
from benchmarks.learning.rows import append_row, missing, read_rows
from benchmarks.learning.scale import WHOLE, Scale
from benchmarks.learning.world import base_policy, learning_world
from benchmarks.processes import RecycledProcesses
from tacit.checkpoints import CheckpointStore

logger = logging.getLogger(__name__)

RECYCLE_AFTER = 8
"""Cells that a process runs before another takes its place: TRL's trainers leave things behind."""


def run_cells(cells: Sequence[Cell], path: Path, *, jobs: int, scale: Scale = WHOLE) -> int:
    """Run what ``path`` lacks of ``cells`` and append it there; how many cells failed."""
    wanted = missing(cells, read_rows(path), partial(digest_of, scale=scale))
    logger.warning("%d of %d cells to run", len(wanted), len(cells))
    num_failed = 0
    for seeds in _waves(wanted, size=jobs):
        group = [cell for cell in wanted if cell.seed in seeds]
        with _processes(jobs) as processes:
            for made in [processes.submit(make_base_of, seed, scale) for seed in seeds]:
                made.result()
            num_failed += sum(not kept for kept in _run_all(processes, group, path, scale))
    return num_failed


def _waves(cells: Sequence[Cell], *, size: int) -> list[list[int]]:
    """Seeds in the order their first cells come, as many at a time as bases are made at once."""
    seeds = list(dict.fromkeys(cell.seed for cell in cells))
    return [seeds[start : start + size] for start in range(0, len(seeds), size)]


def _run_all(
    processes: RecycledProcesses, cells: Sequence[Cell], path: Path, scale: Scale
) -> Iterator[bool]:
    started = time.perf_counter()
    running: dict[Future[Row], Cell] = {
        processes.submit(run_cell, cell, scale): cell for cell in cells
    }
    for number, future in enumerate(as_completed(running), start=1):
        cell = running[future]
        try:
            row = future.result()
        except Exception:
            logger.exception("%s failed", cell)
            yield False
            continue
        append_row(path, row)
        elapsed = time.perf_counter() - started
        end = row["final"]
        logger.warning(
            "%d/%d after %.0f s: %s %s %d %s: new %.3f, old %.3f, %.0f s of CPU",
            *(number, len(cells), elapsed, cell.arm, cell.variant, cell.seed),
            " ".join(cell.overrides),
            *(end["new"], end["old"], row["cpu_s"]),
        )
        yield True


def _processes(jobs: int) -> RecycledProcesses:
    os.environ.update({"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"})
    return RecycledProcesses(jobs, tasks_each=RECYCLE_AFTER, initializer=_begin)


def _begin() -> None:
    from trainer.session import configure_process

    warnings.simplefilter("ignore")  # of libraries, about their own next versions
    configure_process(num_threads=1, device="cpu")


def make_base_of(seed: int, scale: Scale) -> None:
    """Put the base of a seed into the cache."""
    with tempfile.TemporaryDirectory(prefix="tacit-base-") as folder:
        store = CheckpointStore(Path(folder))
        base_policy(
            learning_world(seed, scale.num_old, scale.num_new), store, seed=seed, scale=scale
        )


def digest_of(cell: Cell, scale: Scale = WHOLE) -> str:
    """Of the settings that a cell would be run with now."""
    return config_digest(cell, scale, _world(cell.seed, scale.num_old, scale.num_new))


_world = cache(learning_world)
