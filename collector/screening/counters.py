"""Counters of screening: how many judgements ended so, ever.

They move in the transaction that writes what they count, so that a crash counts nothing twice and
nothing that did not happen.
"""

from collections import Counter

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from collector.reasons import Reason
from collector.tables import ScreeningCounterRow
from tacit.contracts import EventStatus

DUPLICATE = "duplicate"
"""Status of what was dropped because the same event was there already."""
LOST = "lost"
"""Status of records that the stream deleted before they were screened."""


class ScreeningCounts:
    """Counts of one transaction of one policy line; used by one thread."""

    def __init__(self, *, policy: str) -> None:
        self._policy = policy
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, status: EventStatus | str, reason: str | None = None, *, number: int = 1) -> None:
        """Count ``number`` judgements that ended so."""
        self._counts[str(status), reason or ""] += number

    def add_dead_letter(self, reason: Reason) -> None:
        """Count a record that went to dead letter."""
        self.add(EventStatus.DEAD_LETTER, reason)

    def forget(self) -> None:
        """The transaction was rolled back."""
        self._counts.clear()

    def write(self, session: Session) -> None:
        """Add to the table what was counted, and begin again at nothing."""
        rows = [
            {"policy": self._policy, "status": status, "reason": reason, "num_events": number}
            # In one order in every transaction, or two on PostgreSQL could wait for each other.
            for (status, reason), number in sorted(self._counts.items())
            if number
        ]
        self._counts.clear()
        if rows:
            insert = postgresql.insert if _is_postgres(session) else sqlite.insert
            new = insert(ScreeningCounterRow)
            risen = ScreeningCounterRow.num_events + new.excluded.num_events
            keys = ("policy", "status", "reason")
            statement = new.on_conflict_do_update(index_elements=keys, set_={"num_events": risen})
            session.execute(statement, rows)


def _is_postgres(session: Session) -> bool:
    return session.get_bind().dialect.name == "postgresql"
