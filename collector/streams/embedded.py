"""The embedded stream: one SQLite file that several processes share.

Group commit: appends of all threads that wait at one moment go into one transaction, and thereby
into one fsync (the technique is that of DeWitt et al. 1984, "Implementation techniques for main
memory database systems"). One partition, 0.
"""

import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

from collector.streams.base import StreamRecord
from tacit.errors import UnavailableError

PARTITION = 0
_LOCK_TIMEOUT_S = 30.0
_POLL_S = 0.05
_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    topic TEXT NOT NULL,
    offset INTEGER NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (topic, offset)
) WITHOUT ROWID
"""
_INSERT = "INSERT INTO records (topic, offset, key, value) VALUES (?, ?, ?, ?)"
_NEXT = "SELECT COALESCE(MAX(offset) + 1, 0) FROM records WHERE topic = ?"
_READ = (
    "SELECT offset, key, value FROM records WHERE topic = ? AND offset >= ? ORDER BY offset LIMIT ?"
)


class _Append(NamedTuple):
    topic: str
    records: Sequence[tuple[str, bytes]]
    done: "Future[None]"


class EmbeddedStream:
    """A Stream in the SQLite file at ``path``, made if it is not there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._waiting: list[_Append] = []
        self._changed = threading.Condition()
        self._closed = False
        self._reader_lock = threading.Lock()
        try:
            self._reader = self._connect()
            self._reader.execute(_SCHEMA)
        except sqlite3.Error as error:
            raise self._unavailable(error) from error
        self._writer = threading.Thread(target=self._write, name="tacit-stream", daemon=True)
        self._writer.start()

    def append(self, topic: str, records: Sequence[tuple[str, bytes]]) -> None:
        """See Stream. Returns once a commit with synchronous=FULL holds all of ``records``."""
        if not records:
            return
        asked = _Append(topic, records, Future())
        with self._changed:
            if self._closed:
                raise UnavailableError("an open stream", got="one that was closed")
            self._waiting.append(asked)
            self._changed.notify_all()
        asked.done.result()

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

    def close(self) -> None:
        """See Stream. Appends that wait are committed first."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._writer.join()
        with self._reader_lock:
            self._reader.close()

    def _select(self, topic: str, start: int, limit: int) -> list[tuple[int, str, bytes]]:
        with self._reader_lock:
            try:
                return self._reader.execute(_READ, (topic, start, limit)).fetchall()
            except sqlite3.Error as error:
                raise self._unavailable(error) from error

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=_LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        return connection

    def _write(self) -> None:
        connection: sqlite3.Connection | None = None
        while appends := self._take():
            try:
                connection = connection or self._connect()
                _commit(connection, appends)
            except sqlite3.Error as error:
                _fail(appends, self._unavailable(error))
                if connection is not None:
                    connection.close()
                connection = None
            else:
                self._acknowledge(appends)
        if connection is not None:
            connection.close()

    def _take(self) -> list[_Append]:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            taken, self._waiting = self._waiting, []
            return taken

    def _acknowledge(self, appends: Sequence[_Append]) -> None:
        for append in appends:
            append.done.set_result(None)
        with self._changed:
            self._changed.notify_all()

    def _unavailable(self, error: sqlite3.Error) -> UnavailableError:
        return UnavailableError(
            f"a stream file that can be used at {self._path}",
            got=str(error),
            mend="Check free disk space and the rights on the file, then try again.",
        )


def _commit(connection: sqlite3.Connection, appends: Sequence[_Append]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        next_offsets: dict[str, int] = {}
        for topic, records, _ in appends:
            if topic not in next_offsets:
                next_offsets[topic] = connection.execute(_NEXT, (topic,)).fetchone()[0]
            start = next_offsets[topic]
            connection.executemany(
                _INSERT, [(topic, start + i, key, value) for i, (key, value) in enumerate(records)]
            )
            next_offsets[topic] = start + len(records)
        connection.execute("COMMIT")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _fail(appends: Sequence[_Append], error: UnavailableError) -> None:
    for append in appends:
        append.done.set_exception(error)
