"""Events that wait to be sent: the queue's protocol, and the queue in memory.

In: events as JSON, from any thread. Out: the oldest of them, in order, until the sender says that
they are settled. What was handed out still counts against the bounds: it is still in memory.
"""

import threading
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple, Protocol

from tacit.errors import UnavailableError

LETTER_OVERHEAD_BYTES = 256
"""What an event costs beside its JSON, in memory or on disk: measured, and rounded up."""


class Letter(NamedTuple):
    """One event on its way."""

    event_id: str
    body: bytes

    @property
    def size_bytes(self) -> int:
        """What it counts for against the bound of a queue."""
        return len(self.body) + LETTER_OVERHEAD_BYTES


class LetterQueue(Protocol):
    """First in, first out; safe to use from any thread; waits for nothing but the disk."""

    persistent: bool
    """Whether what waits outlives the process."""
    lock: threading.RLock
    """Held while a process forks, so that no other thread is inside the queue just then."""
    num_offered: int
    """Events that ever came in."""
    num_removed: int
    """Events that ever left; they leave in the order they came in."""
    num_bytes: int
    """Sizes of what waits, summed."""

    def __str__(self) -> str:
        """What it is and how much fits, for error messages."""
        ...

    def fits(self, letter: Letter) -> bool:
        """Whether ``letter`` fits into the empty queue."""
        ...

    def has_room(self, letter: Letter) -> bool:
        """Whether ``letter`` fits now."""
        ...

    def offer(self, letters: Sequence[Letter]) -> int:
        """Take as many of ``letters``, from the first, as there is room for; returns how many.

        Raises UnavailableError if the disk refuses or it is closed; then none was taken.
        """
        ...

    def head(self, *, max_events: int, max_bytes: int) -> list[Letter]:
        """The oldest, at least one if any waits; they stay until removed.

        Raises UnavailableError if the disk refuses.
        """
        ...

    def remove(self, num_letters: int) -> None:
        """Forget the first ``num_letters`` of the last :meth:`head`."""
        ...

    def close(self) -> None:
        """Let go of files. Every later call raises UnavailableError or gives nothing."""
        ...


class MemoryQueue:
    """A queue bounded in events and in bytes; gone with the process."""

    persistent = False

    def __init__(self, *, max_events: int, max_bytes: int) -> None:
        self.lock = threading.RLock()
        self.num_offered = 0
        self.num_removed = 0
        self.num_bytes = 0
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._letters: deque[Letter] = deque()
        self._closed = False

    def __str__(self) -> str:
        return f"queue of {self._max_events} events and {self._max_bytes} bytes"

    def fits(self, letter: Letter) -> bool:
        """Whether ``letter`` fits into the empty queue."""
        return letter.size_bytes <= self._max_bytes

    def has_room(self, letter: Letter) -> bool:
        """Whether ``letter`` fits now."""
        return (
            len(self._letters) < self._max_events
            and self.num_bytes + letter.size_bytes <= self._max_bytes
        )

    def offer(self, letters: Sequence[Letter]) -> int:
        """Take as many of ``letters`` as there is room for; returns how many.

        Raises UnavailableError once closed: nobody would send them.
        """
        with self.lock:
            if self._closed:
                raise UnavailableError("an open queue", got="one that was closed")
            for num_taken, letter in enumerate(letters):
                if not self.has_room(letter):
                    return num_taken
                self._letters.append(letter)
                self.num_offered += 1
                self.num_bytes += letter.size_bytes
        return len(letters)

    def head(self, *, max_events: int, max_bytes: int) -> list[Letter]:
        """The oldest, at least one if any waits; they stay until removed."""
        with self.lock:
            return first_of(list(islice(self._letters, max_events)), max_bytes=max_bytes)

    def remove(self, num_letters: int) -> None:
        """Forget the first ``num_letters``."""
        with self.lock:
            for _ in range(num_letters):
                self.num_bytes -= self._letters.popleft().size_bytes
            self.num_removed += num_letters

    def close(self) -> None:
        """Take nothing more."""
        with self.lock:
            self._closed = True


def first_of(letters: Sequence[Letter], *, max_bytes: int) -> list[Letter]:
    """The first ``letters`` whose lines are at most ``max_bytes`` together, and at least one."""
    num_bytes = 0
    for number, letter in enumerate(letters):
        num_bytes += len(letter.body) + 1
        if number and num_bytes > max_bytes:
            return list(letters[:number])
    return list(letters)
