"""Receipts in a SQLite file of their own.

Were they in the database, an acknowledgement would wait for the consumer's transaction to give up
the one write lock. The driver is used as it is: the toolkit's sessions would cost several times
what the statements do.
"""

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from collector.bulk import insert_rows
from collector.receipts.base import body_hash, key_hash
from collector.wal import WalCheckpointer, leave_checkpoints_to_thread
from tacit.errors import UnavailableError

_LOCK_TIMEOUT_S = 5.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS receipts (
    key_hash TEXT PRIMARY KEY,
    body_hash TEXT NOT NULL,
    received_at_s INTEGER NOT NULL
) WITHOUT ROWID
"""
_LOOKUP = (
    "SELECT key_hash, body_hash FROM receipts WHERE key_hash IN (SELECT value FROM json_each(?))"
)
# A dead letter is no answer: sent again, it is judged again.
_SCREENED = (
    "SELECT event_key, body_digest FROM events "
    "WHERE event_key IN (SELECT value FROM json_each(?)) AND status <> 'dead_letter'"
)
_PRUNE = "DELETE FROM receipts WHERE received_at_s < ?"


class SqliteReceipts:
    """A ReceiptBook in the file at ``path``, beside the database at ``database_path``."""

    def __init__(self, path: Path, *, database_path: Path) -> None:
        self._path = path
        # Who asks what is known does not wait for a write, which may wait for the stream.
        self._writing, self._reading = threading.Lock(), threading.Lock()
        try:
            self._writer = _connect(path)
            self._writer.execute(_SCHEMA)
            self._reader = _connect(path)
            self._events = _connect(database_path)
            for connection in (self._reader, self._events):
                connection.execute("PRAGMA query_only=ON")
        except sqlite3.Error as error:
            raise self._unavailable(error) from error
        self._checkpointer = WalCheckpointer(path)

    def lookup(self, keys: Sequence[str]) -> dict[str, str]:
        """See ReceiptBook."""
        if not keys:
            return {}
        with self._reading:
            try:
                known = _acknowledged(self._reader, keys)
                missing = [key for key in keys if key not in known] if known else keys
                return known | self._screened(missing)
            except sqlite3.Error as error:
                raise self._unavailable(error) from error

    def write_new(self, body_hashes: Mapping[str, str], append: Callable[[], None]) -> bool:
        """See ReceiptBook."""
        rows = _rows(body_hashes)
        try:
            with self._reading:
                if self._screened(list(body_hashes)):
                    return False
            with self._transaction() as connection:
                if _insert(connection, rows) < len(rows):
                    connection.execute("ROLLBACK")
                    return False
                append()
        except sqlite3.Error as error:
            raise self._unavailable(error) from error
        return True

    def prune(self, *, before_s: int) -> int:
        """See ReceiptBook."""
        try:
            with self._transaction() as connection:
                return connection.execute(_PRUNE, (before_s,)).rowcount
        except sqlite3.Error as error:
            raise self._unavailable(error) from error

    def close(self) -> None:
        """See ReceiptBook."""
        self._checkpointer.close()
        with self._writing, self._reading:
            for connection in (self._writer, self._reader, self._events):
                connection.close()

    def _screened(self, keys: Sequence[str]) -> dict[str, str]:
        rows = self._events.execute(_SCREENED, (json.dumps(keys),))
        return {key: body_hash(digest) for key, digest in rows}

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Committed at its end unless it was rolled back before."""
        with self._writing:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                if self._writer.in_transaction:
                    self._writer.execute("COMMIT")
            finally:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")

    def _unavailable(self, error: sqlite3.Error) -> UnavailableError:
        return UnavailableError(
            f"a file of receipts that can be used at {self._path}",
            got=str(error),
            mend="Check free disk space and the rights on the file, then try again.",
        )


def _rows(body_hashes: Mapping[str, str]) -> list[tuple[str, str, int]]:
    now_s = int(time.time())
    # In the order of the tree, which is then walked once.
    return sorted((key_hash(key), hashed, now_s) for key, hashed in body_hashes.items())


def _insert(connection: sqlite3.Connection, rows: Sequence[tuple[str, str, int]]) -> int:
    return insert_rows(connection, "receipts", rows, on_conflict="ON CONFLICT DO NOTHING")


def _acknowledged(connection: sqlite3.Connection, keys: Sequence[str]) -> dict[str, str]:
    key_of = {key_hash(key): key for key in keys}
    rows = connection.execute(_LOOKUP, (json.dumps(list(key_of)),))
    return {key_of[hashed]: body for hashed, body in rows}


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=_LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA cache_size=-8000")
    leave_checkpoints_to_thread(connection)
    return connection
