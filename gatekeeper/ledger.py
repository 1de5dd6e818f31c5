"""The ledger: an append-only Merkle log in the sense of RFC 6962, every entry signed.

Appending happens in the caller's transaction, so that what is recorded and the record of it stand
or fall together. An append reads one row: the signature of the last entry carries the frontier of
the tree. Checking is in ``gatekeeper.audit``.
"""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from gatekeeper.audit import (
    EXPORT_FORMAT,
    Frontier,
    LedgerCheck,
    LedgerEntry,
    LedgerHead,
    SignedHead,
    check_entries,
    open_head,
    verify_export,
)
from gatekeeper.tables import LedgerRow
from tacit.contracts import canonical_json, utc_now
from tacit.database import Database
from tacit.errors import IntegrityError
from tacit.merkle import leaf_hash
from tacit.signing import Signer

__all__ = ["Ledger", "LedgerCheck", "LedgerEntry", "LedgerHead", "verify_export"]

_LOCK_ID = 0x7AC17  # any number, the same for all appenders to one database
_ROWS_AT_ONCE = 500


class Ledger:
    """The log of one database."""

    def __init__(
        self, db: Database, signer: Signer, *, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._db = db
        self._signer = signer
        self._clock = clock

    def lock(self, session: Session) -> None:
        """Keep other appenders out until ``session`` ends.

        A writing session on SQLite holds the write lock already.
        """
        if session.get_bind().dialect.name == "postgresql":
            session.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": _LOCK_ID})

    def append(
        self,
        session: Session,
        kind: str,
        subject: str,
        body: dict[str, Any],
        *,
        at: datetime | None = None,
    ) -> None:
        """Record ``body`` in the caller's transaction.

        Moments never go back: an entry is dated no earlier than the one before it.
        Raises IntegrityError if the last entry does not verify; nothing is built on a broken log.
        """
        self.lock(session)
        last = self._head(session)
        sequence = 0 if last is None else last.sequence + 1
        frontier = Frontier() if last is None else last.frontier()
        moment = self._no_earlier(at or self._clock(), last)
        entry = canonical_json(
            {
                "sequence": sequence,
                "kind": kind,
                "subject": subject,
                "body": body,
                "recorded_at": moment.isoformat(),
            }
        )
        frontier.append(leaf_hash(entry))
        session.add(self._row(sequence, kind, subject, entry, frontier, moment))
        session.flush()

    def _row(
        self,
        sequence: int,
        kind: str,
        subject: str,
        entry: bytes,
        frontier: Frontier,
        moment: datetime,
    ) -> LedgerRow:
        head = SignedHead(
            sequence=sequence,
            root=frontier.root.hex(),
            peaks=tuple(peak.hex() for peak in frontier.peaks),
            recorded_at=moment,
        )
        return LedgerRow(
            sequence=sequence,
            kind=kind,
            subject=subject,
            entry=entry.decode(),
            leaf_hash=leaf_hash(entry).hex(),
            root=head.root,
            signature=self._signer.seal(head.model_dump(mode="json")),
            created_at=moment,
        )

    def now(self, session: Session, moment: datetime) -> datetime:
        """``moment``, or the moment of the last entry if the clock was set back behind it."""
        return self._no_earlier(moment, self._head(session))

    @staticmethod
    def _no_earlier(moment: datetime, last: SignedHead | None) -> datetime:
        return moment if last is None else max(moment, last.recorded_at)

    def _head(self, session: Session) -> SignedHead | None:
        row = session.scalar(select(LedgerRow).order_by(LedgerRow.sequence.desc()).limit(1))
        if row is None:
            return None
        head = open_head(row.signature, self._signer)
        if (head.sequence, head.root) != (row.sequence, row.root):
            raise IntegrityError(
                f"the last ledger entry, {row.sequence}, as it was signed",
                got=f"a signature for entry {head.sequence}",
                mend="`tacit audit verify` names every entry that was altered.",
            )
        return head

    def head(self) -> LedgerHead | None:
        """Sequence and root of the last entry, to note elsewhere; None for an empty ledger."""
        with self._db.reader() as session:
            head = self._head(session)
        return None if head is None else LedgerHead(head.sequence, head.root)

    def entries(self, limit: int = 100) -> list[LedgerEntry]:
        """The last ``limit`` entries, newest first."""
        with self._db.reader() as session:
            rows = session.scalars(
                select(LedgerRow).order_by(LedgerRow.sequence.desc()).limit(limit)
            )
            return [_entry(row) for row in rows]

    def verify(self, *, known: LedgerHead | None = None) -> LedgerCheck:
        """Check every entry; ``known`` is a head noted earlier, which shows a cut at the end."""
        with self._db.reader() as session:
            return check_entries(_all(session), self._signer, known=known)

    def export(self) -> dict[str, Any]:
        """The whole ledger as JSON, for ``verify_export`` on any machine."""
        with self._db.reader() as session:
            entries = [entry.model_dump(mode="json") for entry in _all(session)]
        return {
            "format": EXPORT_FORMAT,
            "num_entries": len(entries),
            "root": entries[-1]["root"] if entries else Frontier().root.hex(),
            "entries": entries,
        }


def _all(session: Session) -> Iterator[LedgerEntry]:
    query = (
        select(LedgerRow).order_by(LedgerRow.sequence).execution_options(yield_per=_ROWS_AT_ONCE)
    )
    for row in session.scalars(query):
        yield _entry(row)


def _entry(row: LedgerRow) -> LedgerEntry:
    return LedgerEntry(
        sequence=row.sequence,
        kind=row.kind,
        subject=row.subject,
        entry=row.entry,
        leaf_hash=row.leaf_hash,
        root=row.root,
        signature=row.signature,
        created_at=row.created_at,
    )
