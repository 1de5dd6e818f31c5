"""Learning against forgetting: how much each event teaches, how little is lost.

    python -m benchmarks.learning [--quick] [--arms tacit,replay] [--seeds 0,1] [--jobs 2]

A base policy of 2.7 million weights knows 100 intents of CLINC150 and refuses what is out of scope;
50 intents arrive in deployment over ten rounds of 500 requests, and the feedback on what the policy
of the round really answered is learned from by every arm. Finished cells are kept in
``docs/results/learning/cells.jsonl``; a run that was cut off does what is missing.
``python -m benchmarks.learning.draw`` makes tables and plots of them.

``--set`` tries what a default should be, such as ``--arms tacit --seeds 0 --variants mixed
--set trainer.kl_weight=4``; tables and plots leave such cells out.
"""

import argparse
import logging
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.learning.arms import ARMS
from benchmarks.learning.plan import chosen_cells, full_cells, quick_cells
from benchmarks.learning.rows import current, read_rows
from benchmarks.learning.run import digest_of, run_cells
from benchmarks.learning.summary import by_arm, promised
from benchmarks.learning.variants import VARIANTS
from benchmarks.learning.world import data_folder
from benchmarks.results import DETAILS, report

CELLS = DETAILS / "learning" / "cells.jsonl"


def main() -> None:
    """Run, print, keep."""
    given = _arguments()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    if data_folder() is None:
        logging.getLogger(__name__).warning("CLINC150 is missing; generated utterances instead")
    cells = quick_cells() if given.quick else full_cells()
    cells = chosen_cells(
        cells,
        arms=given.arms,
        variants=given.variants,
        seeds=given.seeds,
        overrides=given.set,
    )
    num_failed = run_cells(cells, given.cells, jobs=given.jobs)
    if given.set:
        return
    rows = current(cells, read_rows(given.cells), digest_of)
    figures = {**promised(by_arm(rows)), "num_cells": float(len(rows)), "quick": given.quick}
    report("learning", figures)
    if num_failed:
        sys.exit(f"{num_failed} cells failed")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two seeds, the arms that matter")
    parser.add_argument("--arms", type=_arms, default=[], help="names, with commas between")
    parser.add_argument("--variants", type=_variants, default=[], help="likewise")
    parser.add_argument("--seeds", type=_seeds, default=[], help="numbers, with commas between")
    parser.add_argument(
        "--set", action="append", default=[], metavar="A.B=C", help="settings to try; no report"
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--cells", type=Path, default=CELLS, help="JSONL of finished cells")
    return parser.parse_args()


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
