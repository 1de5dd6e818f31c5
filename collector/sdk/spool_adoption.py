"""What processes that died left in a spool folder goes into the file of a live one."""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from collector.sdk.spool_claims import Claim, claim_dead
from collector.sdk.spool_file import Row, SpoolFile, is_damage

_EVENTS_AT_ONCE = 50

Write = Callable[[Sequence[Row]], int]
"""Writes as many rows as there is room for, from the first; returns how many."""


def adopt(folder: Path, write: Write, *, fsync: bool) -> None:
    """``write`` what stands in the files of dead processes; what does not fit stays where it is.

    Raises sqlite3.Error or OSError if the disk refuses; what was not written then stays too.
    """
    while (claim := claim_dead(folder)) is not None:
        if not _take_over(claim, write, fsync=fsync):
            return


def _take_over(claim: Claim, write: Write, *, fsync: bool) -> bool:
    """Whether all of it fitted."""
    emptied = False
    try:
        with closing(SpoolFile(claim.path, fsync=fsync)) as other:
            emptied = _move_from(other, write)
    finally:
        claim.release(delete=emptied)
    return emptied


def _move_from(other: SpoolFile, write: Write) -> bool:
    try:
        return _move_rows(other, write)
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        other.rescue(str(error))
        return _move_rows(other, write)


def _move_rows(other: SpoolFile, write: Write) -> bool:
    # Written here before it is deleted there: a crash in between doubles, the service drops.
    while rows := list(other.rows_after(0, limit=_EVENTS_AT_ONCE)):
        num_taken = write(rows)
        if num_taken:
            other.delete_up_to(rows[num_taken - 1].sequence)
        if num_taken < len(rows):
            return False
    return True
