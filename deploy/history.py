"""Reading the releases of a policy line: the newest, a named one, the one to go back to and what
that takes back.

Bundles hold whole reports, so they are read only where they are looked at.
"""

from collections.abc import Sequence

from sqlalchemy import Select, select
from sqlalchemy.orm import Session, defer

from deploy.tables import ReleaseRow
from deploy.verify import read_bundle
from tacit.contracts import Digest, Release
from tacit.errors import ConflictError, NotFoundError


def named_release(session: Session, top: Release, to: str) -> ReleaseRow:
    """The release called ``to``, other than what serves. Raises NotFoundError, ConflictError."""
    row = session.get(ReleaseRow, to)
    if row is None or row.policy != top.policy:
        raise NotFoundError(
            f"a release of policy line {top.policy!r}",
            got=to,
            mend="`tacit status` and GET /v1/releases list them.",
        )
    if row.weights == top.weights:
        raise ConflictError("a release with other weights than serve now", got=to)
    return row


def release_before(session: Session, top: Release) -> ReleaseRow:
    """What the weights that serve now replaced. Raises ConflictError if they replaced nothing.

    Counted from where they were first released: two rollbacks in a row go two steps back rather
    than forward again to what the first one took out.
    """
    rows = release_rows(session, top.policy)
    origin = min(r.sequence for r in rows if r.weights == top.weights)
    for row in rows:
        if row.sequence < origin:
            return row
    raise ConflictError(
        f"a release before {top.release_id} with other weights",
        got="none",
        mend="`--to RELEASE` names any release, newer weights too.",
    )


def batches_taken_back(session: Session, policy: str, release: Release) -> list[Digest]:
    """Digests of the batches whose weights a rollback took out of service, oldest first.

    That is, of all releases after the one that ``release`` goes back to. Empty for a release that
    is not a rollback.
    """
    if release.rollback_of is None:
        return []
    rows = [r for r in release_rows(session, policy) if r.sequence < release.sequence]
    kept = max(r.sequence for r in rows if r.weights == release.weights)
    bundles = [read_bundle(r.bundle) for r in reversed(rows) if r.sequence > kept]
    return list(dict.fromkeys(b.batch.digest() for b in bundles if b.batch is not None))


def release_rows(
    session: Session, policy: str, *, limit: int | None = None
) -> Sequence[ReleaseRow]:
    """All releases of the line, or the ``limit`` newest; newest first."""
    return session.scalars(_newest_first(policy).limit(limit)).all()


def top_release(session: Session, policy: str) -> Release | None:
    """The newest release of the line."""
    row = session.scalar(_newest_first(policy).limit(1))
    return None if row is None else read_release(row)


def read_release(row: ReleaseRow) -> Release:
    """The release in a row, as it was written; its signature is not checked here."""
    return Release.model_validate_json(row.payload)


def _newest_first(policy: str) -> Select[ReleaseRow]:
    query = select(ReleaseRow).where(ReleaseRow.policy == policy)
    return query.order_by(ReleaseRow.sequence.desc()).options(defer(ReleaseRow.bundle))
