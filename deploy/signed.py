"""Weights of releases as they were signed: what candidates are trained from and compared with.

In: the ``releases`` table and the public key. Out: a digest, or an IntegrityError where a row says
something else than the envelope beside it. Who can write to the table but does not hold the key can
so move neither the champion nor the anchor that the gate compares with.
"""

from sqlalchemy import select
from sqlalchemy.orm import Session

from deploy.tables import ReleaseRow
from deploy.verify import open_release, read_bundle
from tacit.contracts import Digest, Release
from tacit.database import Database
from tacit.errors import IntegrityError, NotFoundError
from tacit.signing import Verifier


class SignedReleases:
    """Reads the releases of one database; remembers which envelopes it has opened."""

    def __init__(self, db: Database, verifier: Verifier) -> None:
        self._database = db
        self._verifier = verifier
        # Bundles hold whole reports, and the loop asks at every poll.
        self._opened: dict[str, Release] = {}

    def weights(self, release_id: str) -> Digest:
        """Checkpoint of a release. Raises NotFoundError, IntegrityError."""
        with self._database.reader() as session:
            return self.check(session, release_id).weights

    def anchor(self, policy: str) -> Digest:
        """Checkpoint of the first release of a line. Raises NotFoundError, IntegrityError."""
        first = (ReleaseRow.policy == policy) & (ReleaseRow.sequence == 0)
        with self._database.reader() as session:
            release_id = session.scalar(select(ReleaseRow.release_id).where(first))
            if release_id is None:
                raise NotFoundError(f"a first release of policy line {policy!r}", got="none")
            return self.check(session, release_id).weights

    def check(self, session: Session, release_id: str) -> Release:
        """The release as it was signed. Raises NotFoundError; IntegrityError if its row differs."""
        columns = (ReleaseRow.policy, ReleaseRow.sequence, ReleaseRow.weights, ReleaseRow.payload)
        row = session.execute(select(*columns).where(ReleaseRow.release_id == release_id)).first()
        if row is None:
            raise NotFoundError("a release", got=release_id)
        signed = self._opened.get(release_id) or self._open(session, release_id)
        said = Release.model_validate_json(row.payload)
        if said != signed or (row.policy, row.sequence, row.weights) != (
            signed.policy,
            signed.sequence,
            signed.weights,
        ):
            raise IntegrityError(
                f"{release_id} as it was signed, with {signed.weights}",
                got=f"a row that was altered, with {row.weights}",
                mend="Put the row back; `tacit audit verify` has what was recorded.",
            )
        return signed

    def _open(self, session: Session, release_id: str) -> Release:
        bundle = session.scalar(
            select(ReleaseRow.bundle).where(ReleaseRow.release_id == release_id)
        )
        envelope = read_bundle(bundle or "").release_envelope
        signed = open_release(envelope, verifier=self._verifier)
        if signed.release_id != release_id:
            raise IntegrityError(f"the bundle of {release_id}", got=f"that of {signed.release_id}")
        self._opened[release_id] = signed
        return signed
