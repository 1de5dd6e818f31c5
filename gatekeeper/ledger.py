"""The ledger: an append-only Merkle log in the sense of RFC 6962, every entry signed.

Appending happens in the caller's transaction, so that what is recorded and the record of it stand
or fall together. An append reads one row: the signature of the last entry carries the frontier of
the tree. Reading is in ``gatekeeper.ledger_reader``, checking in ``gatekeeper.audit``.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from gatekeeper.audit import LedgerCheck, LedgerEntry, LedgerHead, SignedHead, verify_export
from gatekeeper.ledger_reader import LedgerReader
from gatekeeper.tables import LedgerRow
from tacit.contracts import canonical_json, utc_now
from tacit.database import Database
from tacit.merkle import Frontier, leaf_hash
from tacit.signing import Signer

__all__ = ["Ledger", "LedgerCheck", "LedgerEntry", "LedgerHead", "verify_export"]

_LOCK_ID = 0x7AC17  # any number, the same for all appenders to one database


class Ledger(LedgerReader):
    """The log of one database."""

    def __init__(
        self, db: Database, signer: Signer, *, clock: Callable[[], datetime] = utc_now
    ) -> None:
        super().__init__(db, signer)
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
        session.add(self.row(sequence, kind, subject, entry, frontier, moment))
        session.flush()

    def row(
        self,
        sequence: int,
        kind: str,
        subject: str,
        entry: bytes,
        frontier: Frontier,
        moment: datetime,
    ) -> LedgerRow:
        """The row of an entry; ``frontier`` is that of the tree which ends with it."""
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

    def moment(self) -> datetime:
        """Now, or the moment of the last entry if the clock was set back behind it."""
        with self._db.reader() as session:
            return self.now(session, self._clock())

    @staticmethod
    def _no_earlier(moment: datetime, last: SignedHead | None) -> datetime:
        return moment if last is None else max(moment, last.recorded_at)
