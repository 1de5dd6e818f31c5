"""What the ledger says of API keys: who can only write to their table makes nobody a reviewer.

In: a key as it stands in its table. Out: nothing where the ledger says the same, else a
NotAuthenticatedError. Every making, rotation and end of a key is an entry, and each is proved by
the signed head of the tree that ends with it: damage elsewhere in the ledger locks nobody out.
"""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import select

from gatekeeper.ledger_reader import LedgerReader
from gatekeeper.tables import LedgerRow
from tacit.contracts import utc_now
from tacit.database import Database
from tacit.errors import IntegrityError, NotAuthenticatedError
from tacit.key_changes import public_fields
from tacit.key_rows import ApiKeyRow, plain_name

CREATED, ROTATED, REVOKED = "key_created", "key_rotated", "key_revoked"
_BOUND = ("key_id", "kind", "scopes", "source", "policy", "secret_hash")


class _Known(NamedTuple):
    fields: dict[str, Any]
    ends: datetime | None


class KeyEntries:
    """Compares keys with the ledger; safe to share between threads."""

    def __init__(
        self, db: Database, ledger: LedgerReader, *, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._db = db
        self._ledger = ledger
        self._clock = clock

    def require(self, row: ApiKeyRow) -> None:
        """Raises NotAuthenticatedError unless the ledger has the key in ``row`` in force."""
        name = plain_name(row.name)
        known = self._known(name).get(row.key_id)
        now = self._clock()
        fields = public_fields(row)
        if (
            known is None
            or (known.ends is not None and known.ends <= now)
            or any(known.fields.get(what) != fields[what] for what in _BOUND)
        ):
            raise NotAuthenticatedError(
                "a key that decides to stand in the ledger as it stands in its table",
                got=f"{name}, which does not",
                mend=f"`tacit keys rotate {name}` on the machine of the service.",
            )

    def _known(self, name: str) -> dict[str, _Known]:
        """The keys that were given out under ``name`` and not revoked since, by id."""
        known: dict[str, _Known] = {}
        for kind, recorded_at, body in self._entries(name):
            if kind != ROTATED:
                # Whoever held a name that is given out anew, or taken back, holds it no more.
                known.clear()
            else:
                until = recorded_at + timedelta(seconds=float(body["grace_s"]))
                known = {
                    key_id: _Known(
                        held.fields, until if held.ends is None else min(held.ends, until)
                    )
                    for key_id, held in known.items()
                }
            if kind != REVOKED:
                ends = body["expires_at"]
                moment = None if ends is None else datetime.fromisoformat(ends)
                known[body["key_id"]] = _Known(body, moment)
        return known

    def _entries(self, name: str) -> list[tuple[str, datetime, dict[str, Any]]]:
        about = LedgerRow.kind.in_((CREATED, ROTATED, REVOKED)) & (LedgerRow.subject == name)
        query = select(LedgerRow.sequence).where(about).order_by(LedgerRow.sequence)
        found = []
        with self._db.reader() as session:
            for number in session.scalars(query).all():
                proof = self._ledger.prove_in(session, number, size=number + 1)
                entry = json.loads(proof.entry)
                if entry["subject"] != name:
                    raise IntegrityError(f"entry {number} about {name}", got=entry["subject"])
                moment = datetime.fromisoformat(entry["recorded_at"])
                found.append((entry["kind"], moment, entry["body"]))
        return found
