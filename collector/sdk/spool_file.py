"""One file of a spool: events in order, each with a checksum, in SQLite.

All methods raise sqlite3.Error; :func:`is_damage` tells a broken file from a disk that refuses.
"""

import logging
import sqlite3
import uuid
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from collector.sdk.letters import LETTER_OVERHEAD_BYTES

logger = logging.getLogger(__name__)

_BUSY_TIMEOUT_S = 10.0
_SHRINK_ABOVE_BYTES = 1024 * 1024
_PRIMARY_CODE = 0xFF
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_COLUMNS = "sequence, event_id, body, checksum"
_TABLE = (
    "CREATE TABLE IF NOT EXISTS letters (sequence INTEGER PRIMARY KEY, event_id BLOB NOT NULL, "
    "body BLOB NOT NULL, checksum INTEGER NOT NULL)"
)


class Row(NamedTuple):
    """One event in a file."""

    sequence: int
    event_id: bytes
    body: bytes
    checksum: int

    @classmethod
    def of(cls, event_id: str, body: bytes) -> "Row":
        """With the checksum that :meth:`is_whole` expects, and no place in the order yet."""
        name = event_id.encode()
        return cls(0, name, body, zlib.crc32(body, zlib.crc32(name)))

    @property
    def size_bytes(self) -> int:
        """What it counts for against the bound of a spool."""
        return LETTER_OVERHEAD_BYTES + (len(self.body) if isinstance(self.body, bytes) else 0)

    def is_whole(self) -> bool:
        """Whether the row reads as it was written."""
        if not isinstance(self.event_id, bytes) or not isinstance(self.body, bytes):
            return False
        return zlib.crc32(self.body, zlib.crc32(self.event_id)) == self.checksum


class Totals(NamedTuple):
    """What stands in a file."""

    num_rows: int
    num_bytes: int
    last: int
    """The highest sequence, 0 in an empty file."""


class SpoolFile:
    """An open file."""

    def __init__(self, path: Path, *, fsync: bool) -> None:
        """Opens or makes it; what can be read of a damaged one is saved."""
        self.path = path
        self._fsync = fsync
        try:
            self._db = self._open()
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self._save(str(error))

    def _open(self) -> sqlite3.Connection:
        # Not in exclusive mode: with that a forked child that ends would tidy the log away under
        # its parent. As it is, SQLite sees that the parent still reads and leaves it alone.
        db = sqlite3.connect(self.path, timeout=_BUSY_TIMEOUT_S, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            # NORMAL hands each commit to the operating system, FULL waits for the disk as well.
            db.execute(f"PRAGMA synchronous={'FULL' if self._fsync else 'NORMAL'}")
            with db:
                db.execute(_TABLE)
        except sqlite3.Error:
            db.close()
            raise
        return db

    def insert(self, rows: Sequence[Row]) -> None:
        """Write ``rows``, all or none; a sequence that is there already stays as it is."""
        with self._db as db:
            db.executemany(f"INSERT OR IGNORE INTO letters ({_COLUMNS}) VALUES (?, ?, ?, ?)", rows)

    def rows_after(self, sequence: int, *, limit: int) -> Iterator[Row]:
        """Rows above ``sequence`` in order, read one at a time: events may be large."""
        query = f"SELECT {_COLUMNS} FROM letters WHERE sequence > ? ORDER BY sequence LIMIT ?"
        return map(Row._make, self._db.execute(query, (sequence, limit)))

    def delete_up_to(self, sequence: int) -> None:
        """Delete the rows up to and with ``sequence``."""
        with self._db as db:
            db.execute("DELETE FROM letters WHERE sequence <= ?", [sequence])

    def delete(self, sequence: int) -> None:
        """Delete one row."""
        with self._db as db:
            db.execute("DELETE FROM letters WHERE sequence = ?", [sequence])

    def totals(self, *, after: int) -> Totals:
        """What stands in it above the sequence ``after``."""
        query = "SELECT COUNT(*), SUM(LENGTH(body)), MAX(sequence) FROM letters WHERE sequence > ?"
        num_rows, num_bytes, last = self._db.execute(query, [after]).fetchone()
        return Totals(num_rows, (num_bytes or 0) + num_rows * LETTER_OVERHEAD_BYTES, last or 0)

    def shrink(self) -> None:
        """Give the space of an emptied file back to the disk, if it is worth the while."""
        if self.path.stat().st_size > _SHRINK_ABOVE_BYTES:
            self._db.execute("VACUUM")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def rescue(self, reason: str) -> None:
        """Set the damaged file aside and go on in a new one, with what could still be read."""
        self._db.close()
        self._save(reason)

    def close(self) -> None:
        """Close it; the rows stay."""
        self._db.close()

    def _save(self, reason: str) -> None:
        aside = self.path.with_suffix(f".{uuid.uuid4().hex[:8]}.damaged")
        for suffix in ("", "-wal"):
            damaged = self.path.with_name(self.path.name + suffix)
            if damaged.exists():
                damaged.rename(aside.with_name(aside.name + suffix))
        self.path.with_name(self.path.name + "-shm").unlink(missing_ok=True)
        self._db = self._open()
        for row in _readable(aside):
            self.insert([row])
        logger.error(
            "spool file %s was damaged (%s): %d events were saved, what cannot be read stays in %s",
            self.path,
            reason,
            self.totals(after=0).num_rows,
            aside,
        )


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file itself is broken, rather than the disk full or away."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & _PRIMARY_CODE in _DAMAGE


def _readable(path: Path) -> Iterator[Row]:
    # From both ends, since a scan ends at the first page that is broken.
    for order in ("ASC", "DESC"):
        db = sqlite3.connect(path)
        try:
            query = f"SELECT {_COLUMNS} FROM letters ORDER BY sequence {order}"
            yield from map(Row._make, db.execute(query))
            return
        except sqlite3.DatabaseError as error:
            logger.debug("%s cannot be read further: %s", path, error)
        finally:
            db.close()
