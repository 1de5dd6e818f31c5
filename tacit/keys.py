"""API keys: made once, kept as hashes, bound to scopes, a source and a policy line.

A bearer key is sent with each request. A webhook key signs what a third party sends; its secret is
derived from the service's master secret, because checking a signature takes the secret itself.
"""

import math
import secrets
from collections.abc import Callable, Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from tacit.contracts import utc_now
from tacit.database import Database
from tacit.errors import ConfigError, InvalidInputError, NotAuthenticatedError
from tacit.key_changes import (
    Journal,
    end,
    insert,
    public_fields,
    require_key_name,
    require_usable,
    rows_of,
    successor,
)
from tacit.key_rows import ApiKeyRow, KeyInfo, KeyKind, info_of, plain_name
from tacit.key_signers import WebhookKey, signers_of
from tacit.key_text import KeyText, is_endpoint, key_id_of, new_endpoint, secret_hash
from tacit.principal import Principal, Scope
from tacit.secrets_file import MasterSecret

__all__ = [
    "ApiKeyRow",
    "KeyInfo",
    "KeyKind",
    "KeyStore",
    "Principal",
    "Scope",
    "WebhookKey",
    "key_id_of",
]


class KeyStore:
    """Creates, authenticates, rotates and revokes keys; safe to share between threads.

    ``master`` is needed for webhook keys alone. Changes of keys go to ``journal``, the ledger, and
    ``vouch`` raises NotAuthenticatedError for a key that may decide and stands there otherwise.
    """

    def __init__(
        self,
        database: Database,
        *,
        master: MasterSecret | None = None,
        journal: Journal | None = None,
        vouch: Callable[[ApiKeyRow], None] | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._journal = journal
        self._vouch = vouch
        self._master = master
        self._clock = clock

    def create(
        self,
        name: str,
        *,
        scopes: set[Scope],
        source: str | None = None,
        policy: str | None = None,
        kind: KeyKind = "bearer",
        rate_limit_per_s: float | None = None,
        expires_at: datetime | None = None,
    ) -> str:
        """Make a key and return its text, which is shown once and never stored.

        The text of a webhook key is its signing secret, ``whsec_…``. Raises ConflictError if a key
        of that name is in force, InvalidInputError for a key that could never be used.
        """
        now = self._clock()
        row = ApiKeyRow(
            name=name,
            scopes=" ".join(sorted(scopes)),
            source=source,
            policy=policy,
            kind=kind,
            rate_limit_per_s=rate_limit_per_s,
            created_at=now,
            expires_at=expires_at,
        )
        require_usable(row, now)
        with self._database.session() as session:
            taken = session.scalar(select(ApiKeyRow).where(ApiKeyRow.name == name))
            if taken is not None and taken.is_past_its_end(now):
                taken.give_up_name("expired")
                session.flush()
            text = self._give_secret(row, after=None)
            insert(session, row)
            self._note(session, "key_created", row)
        return text

    def rotate(self, name: str, *, grace_s: float) -> str:
        """A new secret under the same name, scopes and bindings; returned once, as by ``create``.

        Older secrets work for ``grace_s`` seconds more, 0 for not at all. A key that expires gets
        as long again as it had. The path of a webhook stays.

        Raises NotFoundError.
        """
        if not (math.isfinite(grace_s) and grace_s >= 0):
            raise InvalidInputError("a grace of 0 seconds or more", got=str(grace_s))
        require_key_name(name)
        now = self._clock()
        with self._database.session() as session:
            old, *older = rows_of(session, name)
            row = successor(old, now)
            for ending in (old, *older):
                end(ending, now, grace_s=grace_s)
            session.flush()
            text = self._give_secret(row, after=old)
            insert(session, row)
            self._note(session, "key_rotated", row, grace_s=grace_s)
        return text

    def revoke(self, name: str) -> None:
        """Take a key out of force at once, with all its older secrets; its name becomes free.

        Raises NotFoundError.
        """
        with self._database.session() as session:
            held, *older = rows_of(session, name)
            self._note(session, "key_revoked", held)
            for row in (held, *older):
                end(row, self._clock(), grace_s=0)

    def authenticate(self, key: str | None) -> Principal:
        """Who holds ``key``.

        Raises NotAuthenticatedError on a key that is missing, unknown, revoked, past its end, or
        made to sign webhooks.
        """
        parts, row = KeyText.parse(key), None
        if parts is not None:
            with self._database.reader() as session:
                row = session.get(ApiKeyRow, parts.key_id)
        if parts is None or row is None or not _opens(row, parts.secret):
            raise NotAuthenticatedError(
                "an API key in `Authorization: Bearer …`",
                got="an unknown key" if (key or "").strip() else "no key",
                mend="`tacit keys create` makes one; products read TACIT_API_KEY.",
            )
        return self._principal_in_force(row)

    def holder(self, key_id: str) -> Principal:
        """Who holds the bearer key with this id, for a login that outlives one request.

        Raises NotAuthenticatedError if the key is unknown, was revoked since or has expired.
        """
        with self._database.reader() as session:
            row = session.get(ApiKeyRow, key_id)
        if row is None or row.kind != "bearer":
            raise NotAuthenticatedError("a key in force", got="one that is unknown")
        return self._principal_in_force(row)

    def webhook(self, endpoint: str) -> list[WebhookKey]:
        """The keys that may sign deliveries to ``/v1/webhooks/<endpoint>``, newest first.

        More than one while a rotated secret has its grace. Raises NotAuthenticatedError if there
        is none, UnavailableError if the master secret is not the one that made them.
        """
        rows: Sequence[ApiKeyRow] = ()
        if is_endpoint(endpoint):
            with self._database.reader() as session:
                named = ApiKeyRow.key_id.startswith(f"{endpoint}-")
                rows = session.scalars(
                    select(ApiKeyRow).where(named).order_by(ApiKeyRow.created_at.desc())
                ).all()
        now = self._clock()
        in_force = [row for row in rows if row.is_in_force(now)]
        if not in_force:
            raise NotAuthenticatedError(
                "the path of a webhook in force",
                got="one that is unknown, was revoked or has expired",
                mend="`tacit keys create NAME --webhook --source S` makes one.",
            )
        return signers_of(in_force, self._require_master())

    def in_force(self) -> list[KeyInfo]:
        """What may be shown of all keys in force, by name."""
        now = self._clock()
        with self._database.reader() as session:
            rows = session.scalars(
                select(ApiKeyRow).where(ApiKeyRow.revoked_at.is_(None)).order_by(ApiKeyRow.name)
            )
            return [info_of(row) for row in rows if row.is_in_force(now)]

    def _principal_in_force(self, row: ApiKeyRow) -> Principal:
        if row.is_in_force(self._clock()):
            principal = row.principal()
            if self._vouch is not None and principal.scopes & {Scope.REVIEW, Scope.ADMIN}:
                self._vouch(row)
            return principal
        became = "was revoked" if row.revoked_at is not None else f"expired at {row.expires_at}"
        raise NotAuthenticatedError(
            "a key in force",
            got=f"{plain_name(row.name)}, which {became}",
            mend="`tacit keys create` makes another.",
        )

    def _give_secret(self, row: ApiKeyRow, *, after: ApiKeyRow | None) -> str:
        """Give ``row`` an id and a secret; the text to show once."""
        if row.kind == "bearer":
            text = KeyText.new()
            row.key_id, row.secret_hash = text.key_id, secret_hash(text.secret)
            return str(text)
        endpoint, _, generation = (after.key_id if after else new_endpoint()).partition("-")
        row.key_id = f"{endpoint}-{int(generation or 0) + 1}"
        secret = self._require_master().webhook_secret(row.key_id)
        row.secret_hash = secret_hash(secret)
        return secret

    def _note(self, session: Session, kind: str, row: ApiKeyRow, **more: object) -> None:
        if self._journal is not None:
            self._journal(session, kind, row.name, {**public_fields(row), **more})

    def _require_master(self) -> MasterSecret:
        if self._master is None:
            raise ConfigError("a key store opened with the master secret, for a webhook")
        return self._master


def _opens(row: ApiKeyRow, secret: str) -> bool:
    # A webhook's secret is known to a third party: it must never pass as a key of its own.
    return row.kind == "bearer" and secrets.compare_digest(row.secret_hash, secret_hash(secret))
