"""Write-ahead logs of SQLite are copied back beside the writers, so that no commit waits for it.

By default whichever commit makes the log longer than 4 MB copies it into the database and syncs
twice, and everyone who waits for that commit waits tens of milliseconds. Here a thread does so with
a connection of its own, which blocks no writer
(https://www.sqlite.org/wal.html, "Application-initiated checkpoints").
"""

import logging
import sqlite3
import threading
from pathlib import Path

logger = logging.getLogger(__name__)

PERIOD_S = 0.5
INLINE_PAGES = 8_000
"""A log of 32 MB is begun anew by a commit, as under load it never stands still for the thread; all
but the last half second is copied by then."""


class WalCheckpointer:
    """The thread that copies the log of the database at ``path`` back."""

    def __init__(self, path: Path, *, period_s: float = PERIOD_S) -> None:
        self._path = path
        self._period_s = period_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"wal-{path.stem}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; what is in the log stays there and is as durable."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        fails = False
        while not self._stop.wait(self._period_s):
            try:
                connection = connection or sqlite3.connect(self._path, isolation_level=None)
                # Without a read, whoever opened the file before it had a log never sees the log.
                connection.execute("SELECT 1 FROM sqlite_schema").fetchone()
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
            except sqlite3.Error as error:
                # A full disk is told to whoever writes; the log keeps all until there is room.
                if not fails:
                    logger.warning(
                        "the log of %s is not copied back for now: %s", self._path, error
                    )
                if connection is not None:
                    connection.close()
                connection, fails = None, True
            else:
                if fails:
                    logger.warning("the log of %s is copied back again", self._path)
                fails = False
        if connection is not None:
            connection.close()


def leave_checkpoints_to_thread(connection: sqlite3.Connection) -> None:
    """Let commits on ``connection`` copy the log back only where it has grown long."""
    connection.execute(f"PRAGMA wal_autocheckpoint={INLINE_PAGES}")
