"""The embedded stream: one SQLite file that several processes share.

Group commit: of the threads that append at one moment one commits for all, in one transaction and
thereby with one sync to disk (DeWitt et al. 1984, "Implementation techniques for main memory
database systems"). One partition, 0. Each topic has a table of its own, whose row ids are its
offsets: a new record then goes at the end of one B-tree, which is what SQLite does fastest.
"""

import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from collector.bulk import insert_rows
from collector.streams.base import StreamRecord
from collector.wal import WalCheckpointer, leave_checkpoints_to_thread
from tacit.errors import UnavailableError

PARTITION = 0
_LOCK_TIMEOUT_S = 5.0
_POLL_S = 0.05
_SCHEMA = """
CREATE TABLE IF NOT EXISTS topics (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    next_offset INTEGER NOT NULL DEFAULT 0
)
"""
_TOPIC = "SELECT number, next_offset FROM topics WHERE name = ?"
_ADD_TOPIC = "INSERT INTO topics (name) VALUES (?)"
_ADD_RECORDS = (
    "CREATE TABLE records_{} (offset INTEGER PRIMARY KEY, key TEXT NOT NULL, value BLOB NOT NULL)"
)
_RECORDS = "records_{} (offset, key, value)"
_MOVE = "UPDATE topics SET next_offset = ? WHERE number = ?"
_READ = "SELECT offset, key, value FROM records_{} WHERE offset >= ? ORDER BY offset LIMIT ?"
_TRIM = "DELETE FROM records_{} WHERE offset < ?"


@dataclass(eq=False)
class _Append:
    topic: str
    records: Sequence[tuple[str, bytes]]
    committed: bool = False
    error: UnavailableError | None = None


class EmbeddedStream:
    """A Stream in the SQLite file at ``path``, made if it is not there."""

    def __init__(self, path: Path) -> None:
        self.num_lost: Counter[str] = Counter()  # stays empty: only what was read is trimmed
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._waiting: list[_Append] = []
        self._changed = threading.Condition()
        self._closed = False
        self._reader_lock = threading.Lock()
        self._writer_lock = threading.Lock()
        self._writer: sqlite3.Connection | None = None
        self._checkpointer: WalCheckpointer | None = None
        try:
            self._reader = self._connect()
            self._reader.execute(_SCHEMA)
        except sqlite3.Error as error:
            raise self._unavailable(error) from error

    def append(self, topic: str, records: Sequence[tuple[str, bytes]]) -> None:
        """See Stream. Returns once a commit with synchronous=FULL holds all of ``records``."""
        if not records:
            return
        asked = _Append(topic, records)
        with self._changed:
            if self._closed:
                raise UnavailableError("an open stream", got="one that was closed")
            self._waiting.append(asked)
        with self._writer_lock:
            # Whoever had the lock before may have committed this append with its own.
            if not asked.committed and asked.error is None:
                self._commit_waiting()
        if asked.error is not None:
            raise asked.error
        if not asked.committed:
            # Another thread took it along and did not come to the end of its commit.
            raise UnavailableError("a commit that ends", got="one that was broken off")

    def read(
        self, topic: str, positions: Mapping[int, int], *, limit: int, timeout_s: float
    ) -> list[StreamRecord]:
        """See Stream."""
        deadline = time.monotonic() + timeout_s
        start = positions.get(PARTITION, 0)
        while True:
            rows = self._select(topic, start, limit)
            left = deadline - time.monotonic()
            if rows or left <= 0:
                return [StreamRecord(topic, PARTITION, *row) for row in rows]
            with self._changed:
                # Another process cannot notify this one, so the wait is short.
                self._changed.wait(min(left, _POLL_S))

    def end_offsets(self, topic: str) -> dict[int, int]:
        """See Stream."""
        with self._reader_lock:
            try:
                row = self._reader.execute(_TOPIC, (topic,)).fetchone()
            except sqlite3.Error as error:
                raise self._unavailable(error) from error
        return {PARTITION: 0 if row is None else row[1]}

    def trim(self, topic: str, *, before: int) -> int:
        """Delete the records of ``topic`` with offsets below ``before``; how many there were.

        Their space is used again for new records. Raises UnavailableError.
        """
        connection: sqlite3.Connection | None = None
        try:
            connection = self._connect()
            row = connection.execute(_TOPIC, (topic,)).fetchone()
            return (
                0 if row is None else connection.execute(_TRIM.format(row[0]), (before,)).rowcount
            )
        except sqlite3.Error as error:
            raise self._unavailable(error) from error
        finally:
            if connection is not None:
                connection.close()

    def close(self) -> None:
        """See Stream. Appends that wait are committed first."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        with self._writer_lock:
            if self._waiting:
                self._commit_waiting()
            self._drop_writer()
        if self._checkpointer is not None:
            self._checkpointer.close()
        with self._reader_lock:
            self._reader.close()

    def _select(self, topic: str, start: int, limit: int) -> list[tuple[int, str, bytes]]:
        with self._reader_lock:
            try:
                row = self._reader.execute(_TOPIC, (topic,)).fetchone()
                if row is None:
                    return []
                return self._reader.execute(_READ.format(row[0]), (start, limit)).fetchall()
            except sqlite3.Error as error:
                raise self._unavailable(error) from error

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=_LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        leave_checkpoints_to_thread(connection)
        return connection

    def _commit_waiting(self) -> None:
        with self._changed:
            appends, self._waiting = self._waiting, []
        try:
            self._writer = self._writer or self._connect()
            # Processes that only read have nothing to copy back.
            self._checkpointer = self._checkpointer or WalCheckpointer(self._path)
            _commit(self._writer, appends)
        except sqlite3.Error as error:
            self._drop_writer()
            for append in appends:
                append.error = self._unavailable(error)
            return
        for append in appends:
            append.committed = True
        with self._changed:
            self._changed.notify_all()

    def _drop_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = None

    def _unavailable(self, error: sqlite3.Error) -> UnavailableError:
        return UnavailableError(
            f"a stream file that can be used at {self._path}",
            got=str(error),
            mend="Check free disk space and the rights on the file, then try again.",
        )


def _commit(connection: sqlite3.Connection, appends: Sequence[_Append]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for topic in {append.topic for append in appends}:
            records = [record for a in appends if a.topic == topic for record in a.records]
            _insert(connection, topic, records)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _insert(
    connection: sqlite3.Connection, topic: str, records: Sequence[tuple[str, bytes]]
) -> None:
    row = connection.execute(_TOPIC, (topic,)).fetchone()
    if row is None:
        connection.execute(_ADD_TOPIC, (topic,))
        row = connection.execute(_TOPIC, (topic,)).fetchone()
        connection.execute(_ADD_RECORDS.format(row[0]))
    number, start = row
    rows = [(start + i, key, value) for i, (key, value) in enumerate(records)]
    insert_rows(connection, _RECORDS.format(number), rows)
    connection.execute(_MOVE, (start + len(rows), number))
