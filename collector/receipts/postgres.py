"""Receipts in PostgreSQL, beside the other tables."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import delete, text
from sqlalchemy.orm import Session

from collector.receipts.base import body_hash, key_hash
from collector.tables import ReceiptRow
from tacit.database import Database

# One statement whatever the number of keys.
_AMONG = "IN (SELECT json_array_elements_text(CAST(:keys AS json)))"
_LOOKUP = text(f"SELECT key_hash, body_hash FROM receipts WHERE key_hash {_AMONG}")
# A dead letter is no answer: sent again, it is judged again.
_SCREENED = text(
    f"SELECT event_key, body_digest FROM events WHERE event_key {_AMONG} "
    "AND status <> 'dead_letter'"
)
_INSERT = text(
    "INSERT INTO receipts SELECT key, value, :now_s FROM json_each_text(CAST(:rows AS json)) "
    "ON CONFLICT DO NOTHING"
)


class PostgresReceipts:
    """A ReceiptBook in ``database``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def lookup(self, keys: Sequence[str]) -> dict[str, str]:
        """See ReceiptBook."""
        if not keys:
            return {}
        with self._database.reader() as session:
            known = _acknowledged(session, keys)
            missing = [key for key in keys if key not in known]
            return known | _screened(session, missing)

    def write_new(self, body_hashes: Mapping[str, str], append: Callable[[], None]) -> bool:
        """See ReceiptBook."""
        with self._database.session() as session:
            if _screened(session, list(body_hashes)):
                return False
            if _insert(session, body_hashes) < len(body_hashes):
                session.rollback()
                return False
            append()
        return True

    def prune(self, *, before_s: int) -> int:
        """See ReceiptBook."""
        with self._database.session() as session:
            old = ReceiptRow.received_at_s < before_s
            done: Any = session.execute(delete(ReceiptRow).where(old))
            return int(done.rowcount)

    def close(self) -> None:
        """See ReceiptBook. The database is its owner's to close."""


def _screened(session: Session, keys: Sequence[str]) -> dict[str, str]:
    rows = session.execute(_SCREENED, {"keys": json.dumps(keys)})
    return {key: body_hash(digest) for key, digest in rows}


def _insert(session: Session, body_hashes: Mapping[str, str]) -> int:
    """How many were not there yet."""
    # In one order in every process, or two that insert the same keys could wait for each other.
    rows = dict(sorted((key_hash(key), hashed) for key, hashed in body_hashes.items()))
    done: Any = session.execute(_INSERT, {"rows": json.dumps(rows), "now_s": int(time.time())})
    return int(done.rowcount)


def _acknowledged(session: Session, keys: Sequence[str]) -> dict[str, str]:
    key_of = {key_hash(key): key for key in keys}
    rows = session.execute(_LOOKUP, {"keys": json.dumps(list(key_of))})
    return {key_of[hashed]: body for hashed, body in rows}
