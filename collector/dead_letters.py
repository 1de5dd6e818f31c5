"""Dead letters: records that could not be taken, kept whole so that they can be replayed."""

import logging
from datetime import datetime

from sqlalchemy.orm import Session

from collector.streams import StreamRecord
from collector.tables import DeadLetterRow

logger = logging.getLogger(__name__)


def bury(
    session: Session, record: StreamRecord, *, reason: str, detail: str, now: datetime
) -> None:
    """Keep ``record`` with the machine-readable ``reason`` and a ``detail`` for a person."""
    logger.warning(
        "dead letter %s/%s@%s: %s", record.topic, record.partition, record.offset, reason
    )
    session.add(
        DeadLetterRow(
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            payload=record.value,
            reason=reason,
            # PostgreSQL stores no NUL.
            detail=detail.replace("\x00", "\\0"),
            occurred_at=now,
        )
    )
