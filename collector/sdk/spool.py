"""Events that wait to be sent, on disk: they outlive the process, and the next one sends them.

A folder holds one SQLite file for each process that sends. A file whose process died is taken over
by the next one that opens the folder, or by a live one that has nothing else to do. So an event
may be sent twice, and the service drops the second by its id; none is forgotten.

A call that returned survives ``kill -9``; with ``fsync`` it survives a power cut too.
"""

import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from collector.sdk.letters import Letter
from collector.sdk.spool_adoption import adopt
from collector.sdk.spool_claims import Claim, claim_dead, claim_new
from collector.sdk.spool_file import Row, SpoolFile, is_damage
from tacit.errors import UnavailableError

logger = logging.getLogger(__name__)

ADOPT_EVERY_S = 10.0
SET_ASIDE = "set-aside.ndjson"
T = TypeVar("T")


class Spool:
    """A queue in a folder; see :class:`collector.sdk.letters.LetterQueue`."""

    persistent = True

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int,
        fsync: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``max_bytes`` bounds what waits in this process's file.

        Raises UnavailableError if the folder cannot be written.
        """
        self.lock = threading.RLock()
        self.num_offered = 0
        self.num_removed = 0
        self.num_bytes = 0
        self._folder = folder
        self._max_bytes = max_bytes
        self._fsync = fsync
        self._clock = clock
        self._settled_to = 0
        self._next = 1
        self._handed_out: deque[Row] = deque()
        self._closed = False
        with self._trouble():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._claim: Claim = claim_dead(folder) or claim_new(folder)
            self._file = SpoolFile(self._claim.path, fsync=fsync)
            self._with_rescue(self._count)
        self._adopt()

    def __str__(self) -> str:
        return f"spool of {self._max_bytes} bytes in {self._folder}"

    def fits(self, letter: Letter) -> bool:
        """Whether ``letter`` fits into the empty spool."""
        return letter.size_bytes <= self._max_bytes

    def has_room(self, letter: Letter) -> bool:
        """Whether ``letter`` fits now."""
        return self.num_bytes + letter.size_bytes <= self._max_bytes

    def offer(self, letters: Sequence[Letter]) -> int:
        """Write as many of ``letters`` as there is room for; returns how many.

        Raises UnavailableError if the disk refuses; then none was written.
        """
        with self.lock, self._trouble():
            if self._closed:
                raise UnavailableError("an open spool", got="one that was closed")
            rows = [Row.of(*letter) for letter in letters]
            return self._with_rescue(lambda: self._write(rows))

    def head(self, *, max_events: int, max_bytes: int) -> list[Letter]:
        """The oldest, at least one if any waits. Raises UnavailableError if the disk refuses."""
        with self.lock, self._trouble():
            if self._closed:
                return []
            if not self._num_waiting and self._clock() >= self._adopt_at:
                self._adopt()
            return self._with_rescue(lambda: self._read(max_events, max_bytes))

    def remove(self, num_letters: int) -> None:
        """Delete the first ``num_letters`` of the last :meth:`head`.

        If the disk refuses, they stay there for now but are not handed out again.
        """
        with self.lock:
            for row in [self._handed_out.popleft() for _ in range(num_letters)]:
                self._settled_to = row.sequence
                self.num_removed += 1
                self.num_bytes -= row.size_bytes
            if self._closed:
                return
            try:
                self._file.delete_up_to(self._settled_to)
                if not self._num_waiting:
                    self._file.shrink()
            except (sqlite3.Error, OSError) as error:
                logger.warning("sent events stay in the %s for now: %s", self, error)

    def close(self) -> None:
        """Close the file, and delete it if nothing waits in it."""
        with self.lock:
            if not self._closed:
                self._closed = True
                self._file.close()
                self._claim.release(delete=not self._num_waiting)

    @property
    def _num_waiting(self) -> int:
        return self.num_offered - self.num_removed

    def _write(self, rows: Sequence[Row]) -> int:
        """Write those of ``rows`` that fit, from the first, as the newest; returns how many."""
        num_bytes = self.num_bytes
        taken: list[Row] = []
        for row in rows:
            num_bytes += row.size_bytes
            # One too large for any room comes from a process with a larger bound: let it in alone.
            if num_bytes > self._max_bytes and (self._num_waiting or taken):
                break
            taken.append(row._replace(sequence=self._next + len(taken)))
        if taken:
            self._file.insert(taken)
            self._next = taken[-1].sequence + 1
            self.num_offered += len(taken)
            self.num_bytes += sum(row.size_bytes for row in taken)
        return len(taken)

    def _read(self, max_events: int, max_bytes: int) -> list[Letter]:
        self._handed_out.clear()
        broken: list[Row] = []
        num_bytes = 0
        for row in self._file.rows_after(self._settled_to, limit=max_events):
            if not row.is_whole():
                broken.append(row)
                continue
            num_bytes += len(row.body) + 1
            if self._handed_out and num_bytes > max_bytes:
                break
            self._handed_out.append(row)
        for row in broken:
            self._set_aside(row)
        if broken and not self._handed_out:
            return self._read(max_events, max_bytes)
        if self._num_waiting and not self._handed_out:
            self._count()  # somebody else took rows out of the file
        return [Letter(row.event_id.decode(), row.body) for row in self._handed_out]

    def _set_aside(self, row: Row) -> None:
        aside = self._folder / SET_ASIDE
        logger.error("an event does not read as it was written; it is moved to %s", aside)
        with aside.open("ab") as file:
            file.write((row.body if isinstance(row.body, bytes) else repr(row).encode()) + b"\n")
        self._file.delete(row.sequence)
        self._count()

    def _count(self) -> None:
        """Set the figures to what the file holds beyond what was settled."""
        totals = self._file.totals(after=self._settled_to)
        self.num_offered += max(0, totals.num_rows - self._num_waiting)
        self.num_removed = self.num_offered - totals.num_rows
        self.num_bytes = totals.num_bytes
        self._next = max(self._next, self._settled_to + 1, totals.last + 1)

    def _with_rescue(self, step: Callable[[], T]) -> T:
        """``step()``, once more if the file turns out to be damaged."""
        try:
            return step()
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self._file.rescue(str(error))
            self._file.insert(self._handed_out)  # these are still in memory
            self._count()
            return step()

    def _adopt(self) -> None:
        """Take what dead processes left; what does not fit stays where it is."""
        self._adopt_at = self._clock() + ADOPT_EVERY_S
        try:
            adopt(self._folder, self._write, fsync=self._fsync)
        except (sqlite3.Error, OSError) as error:
            logger.warning("what other processes left in %s stays there: %s", self._folder, error)

    @contextmanager
    def _trouble(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise UnavailableError(
                f"a folder for the spool, {self._folder}, that can be read and written",
                got=str(error),
                mend="Free disk space, or mend its permissions.",
            ) from error
