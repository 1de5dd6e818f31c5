"""Finished cells as lines of JSON: written one by one, read again so that none is run twice."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from benchmarks.learning.cell import Cell
from benchmarks.learning.probes import Row


def read_rows(path: Path) -> list[Row]:
    """Rows in the order they were written; of one cell the newest. A line cut short is left out."""
    if not path.exists():
        return []
    rows: dict[Cell, Row] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
            rows[Cell.of(row)] = row
        except (ValueError, TypeError, KeyError):  # the run was killed while it wrote
            continue
    return list(rows.values())


def append_row(path: Path, row: Row) -> None:
    """Write a finished cell at the end of ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A line that was cut short must not swallow the next one.
    torn = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
    with path.open("a", encoding="utf-8") as file:
        file.write(("\n" if torn else "") + json.dumps(_rounded(row)) + "\n")


def missing(
    cells: Iterable[Cell], rows: Sequence[Row], digest_of: Callable[[Cell], str]
) -> list[Cell]:
    """Cells without a row, or with one that other settings made."""
    made = {Cell.of(row): row["config_digest"] for row in rows}
    return [cell for cell in cells if made.get(cell) != digest_of(cell)]


def current(
    cells: Iterable[Cell], rows: Sequence[Row], digest_of: Callable[[Cell], str]
) -> list[Row]:
    """Rows of ``cells`` that these settings made."""
    by_cell = {Cell.of(row): row for row in rows}
    found = [by_cell[cell] for cell in cells if cell in by_cell]
    return [row for row in found if row["config_digest"] == digest_of(Cell.of(row))]


def _rounded(value: object) -> object:
    """Six digits say more than was measured, and half the file is saved."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list) else value
