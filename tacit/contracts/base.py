"""What every contract shares: frozen, no unknown fields, a canonical form and a digest."""

import hashlib
import json
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, StringConstraints

DIGEST_PATTERN = r"^sha256:[0-9a-f]{64}$"

Digest = Annotated[str, StringConstraints(pattern=DIGEST_PATTERN)]
"""``sha256:`` and 64 lower-case hex digits."""

Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")]
"""1 to 128 characters: letters, digits, ``.``, ``_``, ``:``, ``-``."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
"""A policy line, a source or a suite: lower case, usable in URLs and in MLflow."""

Text = Annotated[str, StringConstraints(max_length=65_536, pattern=r"^[^\x00]*$")]
"""Free text of at most 65,536 characters without NUL (PostgreSQL cannot store it)."""


def _to_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


UtcDatetime = Annotated[AwareDatetime, AfterValidator(_to_utc)]
"""A moment with a time zone, kept in UTC so that one moment has one canonical form."""


class Part(BaseModel):
    """Base of contracts and of the parts they are made of."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def canonical_json(self) -> bytes:
        """UTF-8 JSON with sorted keys and no white space: the bytes that are hashed and signed."""
        return canonical_json(self.model_dump(mode="json"))

    def digest(self) -> str:
        """``sha256:…`` of :meth:`canonical_json`."""
        return sha256_digest(self.canonical_json())


class Contract(Part):
    """A model that crosses a border between stages."""

    schema_version: Literal[1] = 1


def canonical_json(value: object) -> bytes:
    """Bytes of ``value`` in the canonical form; raises ValueError on NaN and infinity."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def sha256_digest(data: bytes) -> str:
    """``sha256:…`` of ``data``."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def short(digest: str) -> str:
    """First 12 hex digits of a digest, for people and for names."""
    return digest.removeprefix("sha256:")[:12]


def utc_now() -> datetime:
    """The present moment in UTC."""
    return datetime.now(UTC)
