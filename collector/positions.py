"""Stream positions move in the transaction that writes what was read, from where they were."""

from collections.abc import Mapping, Sequence

from sqlalchemy import text, update
from sqlalchemy.orm import Session

from collector.streams import StreamRecord
from collector.tables import StreamPositionRow
from tacit.database import insert_missing

_LOCK_ID = 0x7461636974
"""Any number of Tacit's own: PostgreSQL's advisory locks are named by number."""


class Overtaken(Exception):
    """Another consumer has moved the position since it was read."""


def lock_screening(session: Session) -> None:
    """Let one transaction screen at a time: caps count what others have just accepted.

    On SQLite every writing transaction holds the one write lock already.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": _LOCK_ID})


def advance(
    session: Session, topic: str, read_from: Mapping[int, int], records: Sequence[StreamRecord]
) -> None:
    """Move the positions of ``topic`` past ``records``.

    Raises Overtaken if a position is no longer the one in ``read_from``.
    """
    behind: dict[int, int] = {}
    for record in records:
        behind[record.partition] = max(behind.get(record.partition, 0), record.offset + 1)
    for partition, next_offset in sorted(behind.items()):
        _advance_one(session, (topic, partition), read_from.get(partition), next_offset)


def _advance_one(
    session: Session, place: tuple[str, int], old: int | None, next_offset: int
) -> None:
    topic, partition = place
    if old is None:
        row = {"topic": topic, "partition": partition, "next_offset": 0}
        insert_missing(session, StreamPositionRow, [row])
    done = session.execute(
        update(StreamPositionRow)
        .where(
            StreamPositionRow.topic == topic,
            StreamPositionRow.partition == partition,
            StreamPositionRow.next_offset == (old or 0),
        )
        .values(next_offset=next_offset)
    )
    if not done.rowcount:  # type: ignore[attr-defined]
        raise Overtaken
