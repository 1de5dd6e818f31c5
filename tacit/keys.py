"""API keys: made once, kept as hashes, bound to scopes, a source and a policy line."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Double, String, select
from sqlalchemy.orm import Mapped, mapped_column

from tacit.contracts import utc_now
from tacit.database import Base, Database
from tacit.errors import ConflictError, NotAllowedError, NotAuthenticatedError, NotFoundError

_PREFIX = "tacit"


class Scope(StrEnum):
    """What a key may do. ``admin`` may do all of it."""

    SEND = "send"
    """Ask the policy and send feedback."""
    READ = "read"
    """Look at candidates, reports, releases and the ledger."""
    REVIEW = "review"
    """Approve, reject and roll back."""
    ADMIN = "admin"


class ApiKeyRow(Base):
    """One key; only the hash of its secret is kept."""

    __tablename__ = "api_keys"
    key_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(128), unique=True)
    secret_hash: Mapped[str] = mapped_column(String(64))
    scopes: Mapped[str] = mapped_column(String(64))
    """Space-separated."""
    source: Mapped[str | None] = mapped_column(String(64))
    policy: Mapped[str | None] = mapped_column(String(64))
    kind: Mapped[str] = mapped_column(String(16), default="bearer")
    """``bearer``: sent with each request; ``webhook``: signs what a third party sends."""
    rate_limit_per_s: Mapped[float | None] = mapped_column(Double)
    """Events a second the holder may send; None for the service's default."""
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


@dataclass(frozen=True)
class Principal:
    """Who a request comes from."""

    name: str
    scopes: frozenset[Scope]
    source: str | None
    """The only source it may send as; None for any."""
    policy: str | None
    """The only policy line it may touch; None for any."""

    def require(self, scope: Scope) -> None:
        """Raises NotAllowedError without ``scope``."""
        if scope not in self.scopes and Scope.ADMIN not in self.scopes:
            raise NotAllowedError(
                f"a key with scope {scope}",
                got=f"{self.name} with {' '.join(sorted(self.scopes)) or 'no scope'}",
                mend=f"`tacit keys create NAME --scope {scope}` makes one.",
            )

    def require_target(self, *, source: str | None = None, policy: str | None = None) -> None:
        """Raises NotAllowedError if the key is bound to another source or policy line."""
        for what, bound, asked in (
            ("source", self.source, source),
            ("policy", self.policy, policy),
        ):
            if bound is not None and asked is not None and bound != asked:
                raise NotAllowedError(f"{what} {bound!r}, which the key is bound to", got=asked)


class KeyStore:
    """Creates, authenticates and revokes keys."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self,
        name: str,
        *,
        scopes: set[Scope],
        source: str | None = None,
        policy: str | None = None,
    ) -> str:
        """Make a key and return its text, which is shown once and never stored.

        Raises ConflictError if a key of that name exists.
        """
        key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        with self._database.session() as session:
            if session.scalar(select(ApiKeyRow).where(ApiKeyRow.name == name)):
                raise ConflictError(
                    "a new key name", got=name, mend=f"`tacit keys revoke {name}` frees it."
                )
            session.add(
                ApiKeyRow(
                    key_id=key_id,
                    name=name,
                    secret_hash=_hash(secret),
                    scopes=" ".join(sorted(scopes)),
                    source=source,
                    policy=policy,
                    created_at=utc_now(),
                    revoked_at=None,
                )
            )
        return f"{_PREFIX}.{key_id}.{secret}"

    def authenticate(self, key: str | None) -> Principal:
        """Who holds ``key``. Raises NotAuthenticatedError on a missing, unknown or revoked key."""
        prefix, _, rest = (key or "").partition(".")
        key_id, _, secret = rest.partition(".")
        row = None
        if prefix == _PREFIX and key_id and secret:
            with self._database.reader() as session:
                row = session.get(ApiKeyRow, key_id)
        if row is None or not secrets.compare_digest(row.secret_hash, _hash(secret)):
            raise NotAuthenticatedError(
                "an API key in `Authorization: Bearer …`",
                got="an unknown key" if key else "no key",
                mend="`tacit keys create` makes one; products read TACIT_API_KEY.",
            )
        if row.revoked_at is not None:
            raise NotAuthenticatedError("a key in force", got=f"{row.name}, which was revoked")
        return _principal(row)

    def holder(self, key_id: str) -> Principal:
        """Who holds the key with this id, for a login that outlives one request.

        Raises NotAuthenticatedError if the key is unknown or was revoked since.
        """
        with self._database.reader() as session:
            row = session.get(ApiKeyRow, key_id)
        if row is None or row.revoked_at is not None:
            raise NotAuthenticatedError("a key in force", got="one that was revoked or is unknown")
        return _principal(row)

    def revoke(self, name: str) -> None:
        """Take a key out of force; its name becomes free. Raises NotFoundError."""
        with self._database.session() as session:
            row = session.scalar(
                select(ApiKeyRow).where(ApiKeyRow.name == name, ApiKeyRow.revoked_at.is_(None))
            )
            if row is None:
                raise NotFoundError("the name of a key in force", got=name)
            row.revoked_at = utc_now()
            row.name = f"{name} (revoked {row.key_id})"

    def principals(self) -> list[Principal]:
        """All keys in force, by name."""
        with self._database.reader() as session:
            rows = session.scalars(
                select(ApiKeyRow).where(ApiKeyRow.revoked_at.is_(None)).order_by(ApiKeyRow.name)
            )
            return [_principal(row) for row in rows]


def key_id_of(key: str) -> str:
    """The public part of a key's text, under which its row is found."""
    return key.split(".")[1]


def _principal(row: ApiKeyRow) -> Principal:
    scopes = frozenset(Scope(scope) for scope in row.scopes.split())
    return Principal(name=row.name, scopes=scopes, source=row.source, policy=row.policy)


def _hash(secret: str) -> str:
    # The secret has 256 random bits, so a fast hash cannot be searched.
    return hashlib.sha256(secret.encode()).hexdigest()
