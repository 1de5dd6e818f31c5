"""Who owns which file of a spool folder.

``<id>.db`` holds the events of one process and ``<id>.lock`` is locked as long as it lives. The
lock is SQLite's, which is to say the operating system's, on every platform: it falls with the
process, however that ends.
"""

import sqlite3
import uuid
from pathlib import Path
from typing import NamedTuple

_PRIMARY_CODE = 0xFF


class Claim(NamedTuple):
    """The right to one file of the folder, which nobody else has."""

    path: Path
    lock: sqlite3.Connection

    def release(self, *, delete: bool) -> None:
        """Give the file back, or delete it with all that belongs to it."""
        if delete:
            for suffix in (".db", ".db-wal", ".db-shm", ".lock"):
                self.path.with_suffix(suffix).unlink(missing_ok=True)
        self.lock.close()


def claim_new(folder: Path) -> Claim:
    """A name nobody has, locked before the file exists. Raises sqlite3.Error."""
    claim = _claim(folder / f"{uuid.uuid4().hex}.db")
    assert claim is not None, "a fresh name is nobody's"
    return claim


def claim_dead(folder: Path) -> Claim | None:
    """The oldest file in ``folder`` whose process is gone; None if there is none."""
    for path in sorted(folder.glob("*.db"), key=_changed_at):
        claim = _claim(path)
        if claim is None:
            continue
        if path.exists():
            return claim
        claim.release(delete=True)  # its last owner finished between our look and our lock
    return None


def _claim(path: Path) -> Claim | None:
    lock = sqlite3.connect(
        path.with_suffix(".lock"), timeout=0, isolation_level=None, check_same_thread=False
    )
    try:
        lock.execute("PRAGMA journal_mode=MEMORY")  # nothing is ever written, so no file for it
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        lock.close()
        if error.sqlite_errorcode & _PRIMARY_CODE == sqlite3.SQLITE_BUSY:
            return None
        raise
    return Claim(path, lock)


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
