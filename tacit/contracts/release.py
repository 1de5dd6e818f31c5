"""Release: what serves, what served before it, and the approval it stands on."""

from typing import Annotated

from pydantic import Field

from tacit.contracts.base import Contract, Digest, Name, UtcDatetime
from tacit.contracts.batch import SealedBatch
from tacit.contracts.candidate import PolicyCandidate
from tacit.contracts.report import EvalReport


class Release(Contract):
    """One promotion. Rolling back makes a new release that points at older weights."""

    policy: Name
    sequence: Annotated[int, Field(ge=0)]
    """0 for the first release of the policy line, then one more each."""
    weights: Digest
    decision_digest: Digest
    """The approval of these weights."""
    previous: str | None
    """``release_id`` of what served before."""
    rollback_of: str | None = None
    """``release_id`` that this release takes back, if it is a rollback."""
    released_by: str
    released_at: UtcDatetime

    @property
    def release_id(self) -> str:
        """``r-policy-sequence``."""
        return f"r-{self.policy}-{self.sequence}"


class ReleaseBundle(Contract):
    """A release with everything serving verifies before it loads the weights.

    Self-contained: with the public key and the checkpoint it can be checked on any machine.
    """

    release_envelope: str
    """DSSE envelope over the Release, JSON."""
    decision_envelope: str
    """DSSE envelope over the Decision, JSON."""
    candidate: PolicyCandidate | None
    """None, as the next two, only for a genesis release."""
    report: EvalReport | None
    batch: SealedBatch | None
