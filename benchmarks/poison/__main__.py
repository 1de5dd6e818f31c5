"""Poison from end to end: attackers who know the rules, and what of their work is served.

    python -m benchmarks.poison [--quick] [--cells trigger-25-250 …] [--seeds 0 1] [--jobs N]
    python -m benchmarks.poison --table

Finished cells are lines of docs/results/poison/cells.jsonl; a run does what is missing there. The
table in docs/results/poison/README.md is drawn from it. ``--quick`` runs the worst cells of two
seeds from nothing and keeps only its row in RESULTS.md. The last line is a JSON object.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from functools import partial
from pathlib import Path

from benchmarks.poison import cells as cells_module
from benchmarks.poison.cells import Cell, Workshop, grid, make_template, one_thread, run_cell
from benchmarks.poison.line import line_settings
from benchmarks.poison.records import (
    Record,
    append,
    compare,
    config_digest,
    newest_config,
    read,
)
from benchmarks.poison.table import figures, write_table
from benchmarks.poison.world import open_arena
from benchmarks.processes import RecycledProcesses
from benchmarks.results import DETAILS, report
from gatekeeper.policy import load_gate_policy
from tacit.start import base_cache

FOLDER = DETAILS / "poison"
RECORDS, TABLE = FOLDER / "cells.jsonl", FOLDER / "README.md"
SEEDS, QUICK_SEEDS = (0,), (0, 1)
PROBES = ("*probe*", "*trigger*", "grip", "lessons", "probing")
"""Modules of the evaluator that decide what an attack comes to."""
DOUBTS = ("doubts", "overtaken", "against_anchor", "claims", "inferred", "voices")
"""The trainer's, which decide what counts little and what is learned beside it."""
QUICK = ("trigger-25-25", "flip-25-250", "flip-25-25")
"""What the full grid shows to be hardest to stop."""
CELLS_A_PROCESS = 20


def main() -> None:
    """Run what is missing, print, keep."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the worst cells of two seeds")
    parser.add_argument("--cells", nargs="+", metavar="ATTACK-ACCOUNTS-LIES", default=())
    parser.add_argument("--seeds", nargs="+", type=int)
    parser.add_argument("--jobs", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--table", action="store_true", help="draw the table and end")
    asked = parser.parse_args()
    quick: bool = asked.quick
    seeds = asked.seeds or (QUICK_SEEDS if quick else SEEDS)
    wanted = _chosen(asked.cells or (QUICK if quick else ()), seeds)
    config = digest()
    if asked.table:
        write_table(TABLE, read(RECORDS, config=newest_config(RECORDS)))
        return
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="poison-") as scratch:
        records = Path(scratch) / "cells.jsonl" if quick else RECORDS
        workshop = Workshop(Path(scratch) if quick else base_cache() / "poison" / config)
        done = run(wanted, workshop, records, config=config, jobs=asked.jobs)
    found = figures([compare(done[c.name], done[c.honest.name]) for c in wanted])
    found["wall_s"] = time.perf_counter() - started
    found["cpu_s"] = sum(
        done[name].cpu_s for name in {c.name for each in wanted for c in (each, each.honest)}
    )
    if quick:
        report("poison --quick", found)
        return
    write_table(TABLE, read(RECORDS, config=config))
    print(json.dumps(found))


def run(
    wanted: Sequence[Cell], workshop: Workshop, records: Path, *, config: str, jobs: int
) -> dict[str, Record]:
    """Records of ``wanted`` and of their honest twins by name; runs those that are missing."""
    done = read(records, config=config)
    with RecycledProcesses(jobs, tasks_each=CELLS_A_PROCESS, initializer=one_thread) as pool:

        def keep(tasks: list[Callable[[], Record]]) -> None:
            for future in as_completed([pool.submit(task) for task in tasks]):
                record = future.result()
                append(records, record)
                done[record.cell] = record
                print(f"{record.cell}: {record.cpu_s:.0f} s", flush=True)

        twins = list(dict.fromkeys(cell.honest for cell in wanted))
        missing = [c for c in dict.fromkeys((*twins, *wanted)) if c.name not in done]
        missing.sort(key=lambda cell: cell.is_drip)  # ten rounds each, so they come last
        if missing:
            # Here, where torch has the threads it has in a demo: the demo's base is in the cache.
            make_template(workshop)
        keep([partial(run_cell, cell, workshop, config=config) for cell in missing])
    return done


def digest() -> str:
    """Of settings, gate policy, data and the sources that decide what a cell comes to."""
    arena = open_arena()
    settings = line_settings(Path("home"), arena).model_dump(mode="json")
    about = {
        "settings": settings,
        "gate_policy": load_gate_policy(None).digest(),
        "world": arena.world.digest,
    }
    root = Path(cells_module.__file__).parents[2]
    sources = [
        *sorted((root / "collector" / "screening").glob("*.py")),
        *(path for name in PROBES for path in sorted(root.glob(f"evaluator/{name}.py"))),
        *(root / "trainer" / f"{name}.py" for name in DOUBTS),
        root / "tacit" / "testimony.py",
        *(
            Path(__file__).with_name(f"{n}.py")
            for n in ("attacks", "cells", "line", "traffic", "world")
        ),
    ]
    return config_digest(about, sources)


def _chosen(names: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
    everything = grid(seeds)
    if not names:
        return everything
    found = [cell for cell in everything if cell.name.rsplit("-", 1)[0] in names]
    if unknown := set(names) - {cell.name.rsplit("-", 1)[0] for cell in found}:
        raise SystemExit(f"no such cells: {', '.join(sorted(unknown))}")
    return found


if __name__ == "__main__":
    main()
