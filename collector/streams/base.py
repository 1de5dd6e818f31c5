"""What a stream promises: an append is durable when it returns, a read starts where it is told.

Positions are the reader's own business: they stand in the database beside what was read, so that
both move in one transaction.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol


class StreamRecord(NamedTuple):
    """One record and where it stands."""

    topic: str
    partition: int
    offset: int
    key: str
    value: bytes


class Stream(Protocol):
    """An append-only log of topics and partitions; safe to share between threads."""

    @property
    def num_lost(self) -> Mapping[str, int]:
        """By topic: records that were deleted before this stream read them, at most so many."""
        ...

    def append(self, topic: str, records: Sequence[tuple[str, bytes]]) -> None:
        """Add ``(key, value)`` records; they are durable when this returns.

        Records of one key keep their order. Raises UnavailableError if some may not be durable:
        then none, some or all of them are, and the caller sends them again. Raises TooLargeError
        before anything is added if a record can never be.
        """
        ...

    def read(
        self, topic: str, positions: Mapping[int, int], *, limit: int, timeout_s: float
    ) -> list[StreamRecord]:
        """Up to ``limit`` records from ``positions`` (partition to next offset) on.

        A partition without a position is read from its beginning. Records of one partition come
        in order of offset. Returns as soon as there are any, or none after ``timeout_s`` seconds;
        what was appended before the call is found with a ``timeout_s`` of 0 too.
        Raises UnavailableError.
        """
        ...

    def end_offsets(self, topic: str) -> dict[int, int]:
        """Partition to the offset that its next record will get; raises UnavailableError.

        Less a reader's positions it is how far behind that reader is.
        """
        ...

    def close(self) -> None:
        """Give back connections and threads; further calls fail."""
        ...
