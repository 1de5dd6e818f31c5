"""What may become of keys: made, succeeded by another of the same name, ended.

Called by ``tacit/keys.py`` inside its transactions.
"""

import getpass
import math
import os
import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from tacit.contracts.base import Name
from tacit.errors import ConflictError, InvalidInputError, NotFoundError
from tacit.key_rows import ApiKeyRow
from tacit.principal import Scope

# Parentheses mark names that were taken from their key, and the column holds 128 characters.
_NAME = re.compile(r"[^\x00-\x20\x7f()](?:[^\x00-\x1f\x7f()]{0,94}[^\x00-\x20\x7f()])?")
OWN_NAMES = frozenset({"gate", "tacit"})
"""The service itself stands in the ledger under these, and under ``tacit up`` and its like."""
_BOUND: TypeAdapter[str | None] = TypeAdapter(Name | None)

Journal = Callable[[Session, str, str, dict[str, object]], None]
"""Appends ``(kind, subject, body)`` to the ledger within the session's transaction."""


def public_fields(row: ApiKeyRow) -> dict[str, object]:
    """What the ledger says of a key: all but its secret, of which the hash, and who changed it."""
    return {
        "key_id": row.key_id,
        "kind": row.kind,
        "secret_hash": row.secret_hash,
        "scopes": row.scopes.split(),
        "source": row.source,
        "policy": row.policy,
        "expires_at": None if row.expires_at is None else row.expires_at.isoformat(),
        "by": _system_user(),
    }


def _system_user() -> str:
    """Keys are changed on the machine of the service: its user is who did it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def require_usable(row: ApiKeyRow, now: datetime) -> None:
    """Raises InvalidInputError for a key that nobody could ever use."""
    require_key_name(row.name)
    if row.name.casefold() in OWN_NAMES or row.name.casefold().startswith("tacit "):
        raise InvalidInputError(
            "a name that is not Tacit's own: the ledger says by it who decided", got=row.name
        )
    for bound in (row.source, row.policy):
        _require_name(bound)
    limit = row.rate_limit_per_s
    if limit is not None and not (math.isfinite(limit) and limit > 0):
        raise InvalidInputError("a rate limit above 0 events a second", got=str(limit))
    ends = row.expires_at
    if ends is not None and (ends.tzinfo is None or ends <= now):
        raise InvalidInputError("an end in the future, with a time zone", got=str(ends))
    if row.kind == "webhook" and (row.source is None or row.scopes != Scope.SEND):
        raise InvalidInputError(
            "a webhook key with a source and scope send alone",
            got=f"source {row.source}, scopes {row.scopes or 'none'}",
            mend="Pass --source: a third party cannot name its own.",
        )


def require_key_name(name: str) -> None:
    """Raises InvalidInputError for a name that no key can have."""
    if _NAME.fullmatch(name) is None:
        raise InvalidInputError(
            "a key name of 1 to 96 characters without parentheses, control characters or "
            "spaces at its ends",
            got=repr(name[:100]),
        )


def rows_of(session: Session, name: str) -> Sequence[ApiKeyRow]:
    """The key that holds ``name``, then its rotated ones that are not revoked; locked."""
    rotated = ApiKeyRow.name.startswith(f"{name} (rotated ", autoescape=True)
    rows = session.scalars(
        select(ApiKeyRow)
        .where(or_(ApiKeyRow.name == name, rotated), ApiKeyRow.revoked_at.is_(None))
        .order_by(func.length(ApiKeyRow.name))
        .with_for_update()
    ).all()
    if not rows or rows[0].name != name:
        raise NotFoundError("the name of a key in force", got=name, mend="`tacit keys list`.")
    return rows


def successor(old: ApiKeyRow, now: datetime) -> ApiKeyRow:
    """A row of the same name and bindings, without id and secret, that lives as long again."""
    lifetime = None if old.expires_at is None else old.expires_at - old.created_at
    return ApiKeyRow(
        name=old.name,
        scopes=old.scopes,
        source=old.source,
        policy=old.policy,
        kind=old.kind,
        rate_limit_per_s=old.rate_limit_per_s,
        created_at=now,
        expires_at=None if lifetime is None else now + lifetime,
    )


def end(row: ApiKeyRow, now: datetime, *, grace_s: float) -> None:
    """Let ``row`` work for ``grace_s`` more at the most, and give up its name."""
    if grace_s > 0:
        ends = now + timedelta(seconds=grace_s)
        row.expires_at = ends if row.expires_at is None else min(ends, row.expires_at)
        row.give_up_name("rotated")
    else:
        row.revoked_at = now
        row.give_up_name("revoked")


def insert(session: Session, row: ApiKeyRow) -> None:
    """Write ``row``. Raises ConflictError if its name is held, by a rival process too."""
    session.add(row)
    try:
        session.flush()
    except IntegrityError as error:
        raise ConflictError(
            "a new key name", got=row.name, mend=f"`tacit keys revoke {row.name}` frees it."
        ) from error


def _require_name(bound: str | None) -> None:
    try:
        _BOUND.validate_python(bound)
    except ValidationError as error:
        raise InvalidInputError.of_fields(
            error.errors(), what="the name of a source or a policy line"
        ) from error
