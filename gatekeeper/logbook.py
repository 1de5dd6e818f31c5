"""Logbook: looking things up in the ledger for a person, a page at a time.

It reads and checks nothing; ``gatekeeper.ledger`` appends and verifies.
"""

import json
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import func, or_, select

from gatekeeper.audit import LedgerEntry
from gatekeeper.tables import LedgerRow
from tacit.database import Database
from tacit.errors import NotFoundError

MAX_READ = 100_000
"""Newest entries in which words are looked for."""


class EntryPage(NamedTuple):
    """A page of entries, newest first."""

    entries: list[LedgerEntry]
    next: int | None
    """``before`` of the next page; None on the last."""


class Logbook:
    """Finds entries of one ledger."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def kinds(self) -> list[str]:
        """Every kind of entry there is."""
        query = select(LedgerRow.kind).distinct().order_by(LedgerRow.kind)
        with self._db.reader() as session:
            return list(session.scalars(query))

    def page(
        self,
        *,
        kind: str | None = None,
        text: str | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> EntryPage:
        """Entries of ``kind`` that say ``text`` anywhere, with numbers below ``before``."""
        query = select(LedgerRow).order_by(LedgerRow.sequence.desc()).limit(limit + 1)
        if kind is not None:
            query = query.where(LedgerRow.kind == kind)
        if text is not None:
            newest = select(func.max(LedgerRow.sequence)).scalar_subquery()
            says = LedgerRow.entry.icontains(text, autoescape=True)
            query = query.where(LedgerRow.sequence > newest - MAX_READ, says)
        if before is not None:
            query = query.where(LedgerRow.sequence < before)
        with self._db.reader() as session:
            found = [_read(row) for row in session.scalars(query)]
        shown = found[:limit]
        return EntryPage(shown, shown[-1].sequence if len(found) > limit else None)

    def entry(self, sequence: int) -> LedgerEntry:
        """One entry. Raises NotFoundError."""
        with self._db.reader() as session:
            row = session.get(LedgerRow, sequence) if 0 <= sequence < 2**63 else None
        if row is None:
            raise NotFoundError("an entry of the ledger", got=str(sequence))
        return _read(row)

    def about(self, subjects: Sequence[str]) -> list[LedgerEntry]:
        """Entries whose subject is one of ``subjects``, oldest first."""
        query = select(LedgerRow).where(LedgerRow.subject.in_(subjects))
        with self._db.reader() as session:
            return [_read(row) for row in session.scalars(query.order_by(LedgerRow.sequence))]

    def about_event(self, event_key: str) -> list[LedgerEntry]:
        """What people decided about one event of feedback, oldest first."""
        named = LedgerRow.entry.contains(json.dumps(event_key), autoescape=True)
        of_events = or_(LedgerRow.kind.startswith("quarantine"), LedgerRow.kind == "erasure")
        query = select(LedgerRow).where(of_events, named).order_by(LedgerRow.sequence)
        with self._db.reader() as session:
            return [_read(row) for row in session.scalars(query)]


def _read(row: LedgerRow) -> LedgerEntry:
    return LedgerEntry.model_validate(row, from_attributes=True)
