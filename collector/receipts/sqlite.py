"""Receipts in a SQLite file of their own.

Were they in the database, an acknowledgement would wait for the consumer's transaction to give up
the one write lock. The driver is used as it is: the toolkit's sessions would cost several times
what the statements do.
"""

import json
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
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
        self._lock = threading.Lock()
        try:
            self._receipts = _connect(path)
            self._receipts.execute(_SCHEMA)
            self._events = _connect(database_path)
            self._events.execute("PRAGMA query_only=ON")
        except sqlite3.Error as error:
            raise self._unavailable(error) from error
        self._checkpointer = WalCheckpointer(path)

    def lookup(self, keys: Sequence[str]) -> dict[str, str]:
        """See ReceiptBook."""
        if not keys:
            return {}
        with self._lock:
            try:
                known = self._acknowledged(keys)
                missing = [key for key in keys if key not in known] if known else keys
                rows = self._events.execute(_SCREENED, (json.dumps(missing),))
                return known | {key: body_hash(digest) for key, digest in rows}
            except sqlite3.Error as error:
                raise self._unavailable(error) from error

    def write(self, body_hashes: Mapping[str, str]) -> dict[str, str]:
        """See ReceiptBook."""
        now_s = int(time.time())
        rows = [(key_hash(key), hashed, now_s) for key, hashed in body_hashes.items()]
        with self._lock:
            try:
                if self._insert(rows) == len(rows):
                    return dict(body_hashes)
                return self._acknowledged(list(body_hashes))
            except sqlite3.Error as error:
                raise self._unavailable(error) from error

    def prune(self, *, before_s: int) -> int:
        """See ReceiptBook."""
        with self._lock:
            try:
                return self._receipts.execute(_PRUNE, (before_s,)).rowcount
            except sqlite3.Error as error:
                raise self._unavailable(error) from error

    def close(self) -> None:
        """See ReceiptBook."""
        self._checkpointer.close()
        with self._lock:
            self._receipts.close()
            self._events.close()

    def _acknowledged(self, keys: Sequence[str]) -> dict[str, str]:
        key_of = {key_hash(key): key for key in keys}
        rows = self._receipts.execute(_LOOKUP, (json.dumps(list(key_of)),))
        return {key_of[hashed]: body for hashed, body in rows}

    def _insert(self, rows: Sequence[tuple[str, str, int]]) -> int:
        self._receipts.execute("BEGIN IMMEDIATE")
        try:
            num_inserted = insert_rows(
                self._receipts, "receipts", rows, on_conflict="ON CONFLICT DO NOTHING"
            )
            self._receipts.execute("COMMIT")
        except sqlite3.Error:
            if self._receipts.in_transaction:
                self._receipts.execute("ROLLBACK")
            raise
        return num_inserted

    def _unavailable(self, error: sqlite3.Error) -> UnavailableError:
        return UnavailableError(
            f"a file of receipts that can be used at {self._path}",
            got=str(error),
            mend="Check free disk space and the rights on the file, then try again.",
        )


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=_LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA cache_size=-8000")
    leave_checkpoints_to_thread(connection)
    return connection
