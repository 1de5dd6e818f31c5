"""Learning against forgetting: how much each event teaches, how little is lost.

    python -m benchmarks.learning [--quick | --small] [--arms tacit,full] [--seeds 0] [--jobs 2]

A base policy of 2.7 million weights knows 100 intents of CLINC150 and refuses what is out of scope;
50 intents arrive in deployment over ten rounds of 500 requests, and the feedback on what the policy
of the round really answered is learned from by every arm. Finished cells are kept in
``docs/results/learning/cells.jsonl``; a run that was cut off does what is missing.
``python -m benchmarks.learning.draw`` makes tables and plots of them.

``--small`` does the same with 30 and 15 intents, five rounds and a policy of a million weights; its
cells are in ``docs/results/learning/small``. ``--quick`` measures two seeds of that and the arms
that matter, anew each time, and keeps nothing but a row in ``RESULTS.md``.

``--set`` tries what a default should be, such as ``--arms tacit --seeds 0 --variants mixed
--set trainer.kl_weight=4``; tables and plots leave such cells out.
"""

import argparse
import logging
import sys
import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from benchmarks.learning.arms import ARMS
from benchmarks.learning.plan import chosen_cells, full_cells, quick_cells
from benchmarks.learning.rows import current, read_rows
from benchmarks.learning.run import digest_of, run_cells
from benchmarks.learning.scale import SMALL, WHOLE
from benchmarks.learning.summary import by_arm, promised
from benchmarks.learning.variants import VARIANTS
from benchmarks.learning.world import data_folder
from benchmarks.results import DETAILS, report

CELLS = DETAILS / "learning" / "cells.jsonl"
SMALL_CELLS = DETAILS / "learning" / "small" / "cells.jsonl"


def main() -> None:
    """Run, print, keep."""
    given = _arguments()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    if data_folder() is None:
        logging.getLogger(__name__).warning("CLINC150 is missing; generated utterances instead")
    cells = chosen_cells(
        quick_cells() if given.quick else full_cells(),
        arms=given.arms,
        variants=given.variants,
        seeds=given.seeds,
        overrides=given.set,
    )
    scale = SMALL if given.quick or given.small else WHOLE
    with tempfile.TemporaryDirectory(prefix="tacit-learning-") as folder:
        kept = Path(folder) / "cells.jsonl" if given.quick else _kept(given)
        num_failed = run_cells(cells, kept, jobs=given.jobs, scale=scale)
        rows = current(cells, read_rows(kept), partial(digest_of, scale=scale))
    if given.set:
        return
    figures = {**promised(by_arm(rows)), "num_cells": float(len(rows))}
    report("learning" if scale is WHOLE else "learning_small", figures)
    if num_failed:
        sys.exit(f"{num_failed} cells failed")


def _kept(given: argparse.Namespace) -> Path:
    path: Path | None = given.cells
    return path or (SMALL_CELLS if given.small else CELLS)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="as --small, what matters, two seeds")
    size.add_argument(
        "--small", action="store_true", help="fewer intents, five rounds, a smaller policy"
    )
    parser.add_argument("--arms", type=_arms, default=[], help="names, with commas between")
    parser.add_argument("--variants", type=_variants, default=[], help="likewise")
    parser.add_argument("--seeds", type=_seeds, default=[], help="numbers, with commas between")
    parser.add_argument(
        "--set", action="append", default=[], metavar="A.B=C", help="settings to try; no report"
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--cells", type=Path, help="JSONL of finished cells; not with --quick")
    given = parser.parse_args()
    if given.quick and given.cells:
        parser.error("--quick measures anew and keeps no cells; --small --cells keeps them")
    return given


def _arms(text: str) -> list[str]:
    return _known(text, ARMS)


def _variants(text: str) -> list[str]:
    return _known(text, VARIANTS)


def _known(text: str, names: Iterable[str]) -> list[str]:
    given = text.split(",")
    if unknown := set(given) - set(names):
        raise argparse.ArgumentTypeError(f"expected {sorted(names)}; got {sorted(unknown)}")
    return given


def _seeds(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    main()
