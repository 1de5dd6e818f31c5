"""Reading the ledger: its entries, its signed heads, and proofs about both.

Needs the public key alone. What is checked, and how faults are named, is in ``gatekeeper.audit``.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from gatekeeper.audit import (
    EXPORT_FORMAT,
    LedgerCheck,
    LedgerEntry,
    LedgerHead,
    SignedHead,
    check_entries,
    open_head,
)
from gatekeeper.proofs import (
    ConsistencyProof,
    EntryOf,
    InclusionProof,
    prove_consistency,
    prove_inclusion,
)
from gatekeeper.tables import LedgerRow
from tacit.database import Database
from tacit.errors import IntegrityError
from tacit.merkle import Frontier
from tacit.signing import Verifier

_ROWS_AT_ONCE = 500


class LedgerReader:
    """The log of one database; changes nothing."""

    def __init__(self, db: Database, verifier: Verifier) -> None:
        self._db = db
        self._verifier = verifier

    def head(self) -> LedgerHead | None:
        """Sequence and root of the last entry, to note elsewhere; None for an empty ledger."""
        with self._db.reader() as session:
            head = self._head(session)
        return None if head is None else LedgerHead(head.sequence, head.root)

    def signed_head(self) -> str | None:
        """The DSSE envelope over the last head, JSON; None for an empty ledger."""
        with self._db.reader() as session:
            return session.scalar(
                select(LedgerRow.signature).order_by(LedgerRow.sequence.desc()).limit(1)
            )

    def size(self) -> int:
        """Number of entries."""
        with self._db.reader() as session:
            return _size(session)

    def prove(self, sequence: int, *, size: int | None = None) -> InclusionProof:
        """Proof that an entry is in the tree of the first ``size`` entries, by default of all.

        Raises IntegrityError if there is no such entry or one on the way was altered.
        """
        with self._db.reader() as session:
            return self.prove_in(session, sequence, size=size)

    def prove_in(
        self, session: Session, sequence: int, *, size: int | None = None
    ) -> InclusionProof:
        """As :meth:`prove`, with what the caller's transaction sees."""
        size = size or _size(session)
        return prove_inclusion(_reader(session), sequence, size=size, verifier=self._verifier)

    def prove_growth(self, first: int, second: int | None = None) -> ConsistencyProof:
        """Proof that the first ``first`` entries are the beginning of the first ``second``.

        Raises IntegrityError as :meth:`prove` does.
        """
        with self._db.reader() as session:
            second = second or _size(session)
            return prove_consistency(_reader(session), first, second, verifier=self._verifier)

    def find(self, subject: str) -> list[LedgerEntry]:
        """Entries about ``subject`` (the id of a candidate, decision or release), oldest first."""
        if "\x00" in subject:
            return []
        about = select(LedgerRow).where(LedgerRow.subject == subject)
        with self._db.reader() as session:
            return [_entry(row) for row in session.scalars(about.order_by(LedgerRow.sequence))]

    def entries(self, limit: int = 100) -> list[LedgerEntry]:
        """The last ``limit`` entries, newest first."""
        with self._db.reader() as session:
            rows = session.scalars(
                select(LedgerRow).order_by(LedgerRow.sequence.desc()).limit(limit)
            )
            return [_entry(row) for row in rows]

    def verify(self, *, known: Sequence[LedgerHead] = ()) -> LedgerCheck:
        """Check every entry; ``known`` are heads noted earlier, which show a cut at the end."""
        with self._db.reader() as session:
            return check_entries(_all(session), self._verifier, known=known)

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

    def _head(self, session: Session) -> SignedHead | None:
        row = session.scalar(select(LedgerRow).order_by(LedgerRow.sequence.desc()).limit(1))
        if row is None:
            return None
        head = open_head(row.signature, self._verifier)
        if (head.sequence, head.root) != (row.sequence, row.root):
            raise IntegrityError(
                f"the last ledger entry, {row.sequence}, as it was signed",
                got=f"a signature for entry {head.sequence}",
                mend="`tacit audit verify` names every entry that was altered.",
            )
        return head


def _size(session: Session) -> int:
    last = session.scalar(select(func.max(LedgerRow.sequence)))
    return 0 if last is None else last + 1


def _reader(session: Session) -> EntryOf:
    def entry_of(sequence: int) -> LedgerEntry:
        row = session.get(LedgerRow, sequence)
        if row is None:
            raise IntegrityError(
                f"entry {sequence} of the ledger", got="none", mend="`tacit audit verify`."
            )
        return _entry(row)

    return entry_of


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
