"""How far screening is behind a topic, in records and in seconds.

In: the ends of the stream and the positions in the database. The stream keeps no times, so seconds
are measured from when this process first saw that a record was there.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from sqlalchemy import select

from collector.streams import Stream
from collector.tables import StreamPositionRow
from tacit.database import Database

_MAX_SAMPLES = 512


class Place(NamedTuple):
    """Where screening stands in one partition."""

    position: int
    """Next offset to screen."""
    end: int
    """Next offset to be appended."""

    @property
    def records(self) -> int:
        """How many records wait."""
        return max(self.end - self.position, 0)


class Lag:
    """Reads where screening stands in ``topic``."""

    def __init__(self, database: Database, stream: Stream, topic: str) -> None:
        self.topic = topic
        self._database = database
        self._stream = stream

    def read(self) -> dict[int, Place]:
        """Where screening stands in each partition. Raises UnavailableError."""
        # Positions first: the end may grow between the two, but it is never behind a position.
        positions = self._positions()
        ends = self._stream.end_offsets(self.topic)
        return {
            partition: Place(positions.get(partition, 0), end) for partition, end in ends.items()
        }

    def _positions(self) -> dict[int, int]:
        query = select(StreamPositionRow).where(StreamPositionRow.topic == self.topic)
        with self._database.reader() as session:
            return {row.partition: row.next_offset for row in session.scalars(query)}


class WaitingTime:
    """For how long the oldest record has waited that is not screened yet.

    Remembers when each end of a partition was first seen: a record below such an end has waited
    since then at least. So the answer is short by at most the time between two looks.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: dict[int, list[tuple[float, int]]] = {}

    def update(self, places: Mapping[int, Place]) -> float:
        """Seconds, 0 when nothing waits."""
        now = self._clock()
        since = [self._since(partition, place, now) for partition, place in places.items()]
        return now - min(since, default=now)

    def _since(self, partition: int, place: Place, now: float) -> float:
        """When the oldest waiting record of ``partition`` was first seen; ``now`` if none waits."""
        seen = self._seen.setdefault(partition, [])
        if not seen or seen[-1][1] < place.end:
            seen.append((now, place.end))
        seen[:] = [sample for sample in seen if sample[1] > place.position]
        if len(seen) > _MAX_SAMPLES:
            del seen[1::2]  # the oldest stays, the others get coarser
        return seen[0][0] if seen else now
