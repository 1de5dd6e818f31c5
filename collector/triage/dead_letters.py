"""Dead letters: records that could not be taken, kept whole so that they can be replayed.

In: a record and why it was refused. Out: a row with its payload, until it is dropped, too old, or
one of too many. Looking at them, replaying and dropping is in ``replay.py`` beside this. Payloads
are as they came: nothing is redacted, since what does not parse cannot be.
"""

import logging
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import delete, func, select, tuple_
from sqlalchemy.orm import Session

from collector.reasons import Reason
from collector.streams import StreamRecord
from collector.tables import DeadLetterRow
from tacit.config import CollectorSettings
from tacit.database import Database
from tacit.errors import InvalidInputError

logger = logging.getLogger(__name__)

MAX_PAYLOAD_BYTES = 1024 * 1024
"""Of a larger record the beginning is kept; it can be looked at, but not replayed as it is."""
PURGE_EVERY = timedelta(seconds=10)
_PURGE_CHUNK = 1_000
# A partition below zero is one of a topic that was made anew; see ``bury``.
_ID = re.compile(r"([A-Za-z0-9._-]{1,128}):(-?[0-9]{1,9}):([0-9]{1,18})")

PLACE = (DeadLetterRow.topic, DeadLetterRow.partition, DeadLetterRow.offset)
"""Columns of the primary key. Within a partition their order is the order of age."""


class Place(NamedTuple):
    """Where in the stream a dead letter stood."""

    topic: str
    partition: int
    offset: int


def letter_id(place: Place) -> str:
    """``topic:partition:offset``, which needs no escaping in a URL."""
    return f"{place.topic}:{place.partition}:{place.offset}"


def place_of(letter: str) -> Place:
    """The place a letter's id names. Raises InvalidInputError."""
    found = _ID.fullmatch(letter)
    if found is None:
        raise InvalidInputError("the id of a dead letter, topic:partition:offset", got=letter[:200])
    return Place(found[1], int(found[2]), int(found[3]))


def bury(
    session: Session, record: StreamRecord, *, reason: str, detail: str, now: datetime
) -> None:
    """Keep ``record`` with the machine-readable ``reason`` and a ``detail`` for a person."""
    num_bytes = len(record.value)
    if num_bytes > MAX_PAYLOAD_BYTES:
        detail = f"{reason}: {detail}; of {num_bytes} bytes the first {MAX_PAYLOAD_BYTES} are kept"
        reason = Reason.TOO_LARGE
    logger.warning(
        "dead letter %s/%s@%s: %s", record.topic, record.partition, record.offset, reason
    )
    payload = record.value[:MAX_PAYLOAD_BYTES]
    partition = _free_partition(session, record, payload)
    if partition is None:
        return
    session.add(
        DeadLetterRow(
            topic=record.topic,
            partition=partition,
            offset=record.offset,
            payload=payload,
            reason=reason,
            # PostgreSQL stores no NUL.
            detail=detail.replace("\x00", "\\0"),
            occurred_at=now,
        )
    )


def _free_partition(session: Session, record: StreamRecord, payload: bytes) -> int | None:
    """The partition to keep ``record`` under; None if it is kept already.

    A topic that was deleted and made anew counts its offsets from 0 again: what stands at the same
    place since before is another record, and the new one goes under a number below zero.
    """
    partition = record.partition
    while kept := session.get(DeadLetterRow, (record.topic, partition, record.offset)):
        if kept.payload == payload:
            return None
        partition = min(partition, 0) - 1
    return partition


class DeadLetterPurge:
    """Keeps dead letters within ``max_dead_letters`` and ``dead_letter_ttl_s``."""

    def __init__(self, database: Database, settings: CollectorSettings) -> None:
        self._database = database
        self._max_letters = settings.max_dead_letters
        self._ttl = timedelta(seconds=settings.dead_letter_ttl_s)
        self._next_at: datetime | None = None

    def now_and_then(self, now: datetime) -> int:
        """Purge if that was not done in the last ten seconds; how many letters went."""
        if self._next_at is not None and now < self._next_at:
            return 0
        self._next_at = now + PURGE_EVERY
        return self.purge(now)

    def purge(self, now: datetime) -> int:
        """Delete what is too old, and the oldest of what is too many; how many that was."""
        num_purged = 0
        while doomed := self._doomed(now):
            with self._database.session() as session:
                session.execute(delete(DeadLetterRow).where(tuple_(*PLACE).in_(doomed)))
            num_purged += len(doomed)
        if num_purged:
            logger.warning(
                "%s dead letters purged: at most %s are kept, for %s at most",
                num_purged,
                self._max_letters,
                self._ttl,
            )
        return num_purged

    def _doomed(self, now: datetime) -> list[Place]:
        # Read first: an idle consumer should not take the write lock.
        with self._database.reader() as session:
            sizes = _sizes(session)
            num_over = sum(sizes.values()) - self._max_letters
            oldest = _oldest(session, list(sizes))
        return [
            place
            for rank, (moment, place) in enumerate(oldest)
            if rank < num_over or moment < now - self._ttl
        ]


def _sizes(session: Session) -> dict[tuple[str, int], int]:
    """Number of letters of each topic and partition; reads the index of the primary key alone."""
    topic, partition, _ = PLACE
    rows = session.execute(select(topic, partition, func.count()).group_by(topic, partition))
    return {(topic, partition): count for topic, partition, count in rows}


def _oldest(
    session: Session, partitions: Sequence[tuple[str, int]]
) -> list[tuple[datetime, Place]]:
    """The oldest letters, found from the lowest offsets: there is no index by moment."""
    found: list[tuple[datetime, Place]] = []
    for topic, partition in partitions:
        rows = session.execute(
            select(DeadLetterRow.occurred_at, DeadLetterRow.offset)
            .where(DeadLetterRow.topic == topic, DeadLetterRow.partition == partition)
            .order_by(DeadLetterRow.offset)
            .limit(_PURGE_CHUNK)
        )
        found += [(row.occurred_at, Place(topic, partition, row.offset)) for row in rows]
    return sorted(found)[:_PURGE_CHUNK]
