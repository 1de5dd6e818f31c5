"""The table of API keys, and what may be shown of one."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import Double, String
from sqlalchemy.orm import Mapped, mapped_column

from tacit.database import Base
from tacit.principal import Principal, Scope

KeyKind = Literal["bearer", "webhook"]

_TAKEN = re.compile(r" \((?:rotated|revoked|expired) [0-9a-f-]+\)$")


class ApiKeyRow(Base):
    """One key; only the hash of its secret is kept."""

    __tablename__ = "api_keys"
    key_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    """Of a webhook: the id in its path, ``-`` and how often it was rotated."""
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

    def give_up_name(self, why: Literal["rotated", "revoked", "expired"]) -> None:
        """Free the name for another key, and keep it readable."""
        self.name = f"{plain_name(self.name)} ({why} {self.key_id})"

    def is_past_its_end(self, now: datetime) -> bool:
        """Whether the key has expired."""
        return self.expires_at is not None and self.expires_at <= now

    def is_in_force(self, now: datetime) -> bool:
        """Whether the key was neither revoked nor has expired."""
        return self.revoked_at is None and not self.is_past_its_end(now)

    def principal(self) -> Principal:
        """Who holds the key."""
        return Principal(
            key_id=self.key_id,
            name=plain_name(self.name),
            scopes=frozenset(Scope(scope) for scope in self.scopes.split()),
            source=self.source,
            policy=self.policy,
            rate_limit_per_s=self.rate_limit_per_s,
        )


@dataclass(frozen=True)
class KeyInfo:
    """What may be shown of a key: all but its secret."""

    key_id: str
    name: str
    kind: str
    scopes: tuple[str, ...]
    source: str | None
    policy: str | None
    rate_limit_per_s: float | None
    created_at: datetime
    expires_at: datetime | None
    path: str | None
    """Where the deliveries of a webhook go; None for other keys."""


def info_of(row: ApiKeyRow) -> KeyInfo:
    """What may be shown of the key in ``row``."""
    return KeyInfo(
        key_id=row.key_id,
        name=row.name,
        kind=row.kind,
        scopes=tuple(row.scopes.split()),
        source=row.source,
        policy=row.policy,
        rate_limit_per_s=row.rate_limit_per_s,
        created_at=row.created_at,
        expires_at=row.expires_at,
        path=f"/v1/webhooks/{row.key_id.split('-')[0]}" if row.kind == "webhook" else None,
    )


def plain_name(name: str) -> str:
    """The name a key was made under, whatever became of it since."""
    return _TAKEN.sub("", name)
