"""PolicyCandidate: a checkpoint that wants to be served, and everything needed to rebuild it."""

from typing import Annotated, Any

from pydantic import Field

from tacit.contracts.base import Contract, Digest, Name, UtcDatetime, short


class PolicyCandidate(Contract):
    """What the trainer hands on. On CPU ``weights`` is a function of the other fields."""

    policy: Name
    weights: Digest
    """Digest of the checkpoint in the content-addressed store."""
    parent: Digest
    batch_digest: Digest
    config: dict[str, Any]
    """Resolved trainer configuration."""
    seed: int
    world_size: Annotated[int, Field(ge=1)]
    versions: dict[str, str]
    """Versions of the libraries that took part."""
    metrics: dict[str, float]
    """Final training metrics; names are those of ``tacit.tracking``."""
    mlflow_run_id: str | None = None
    created_at: UtcDatetime

    @property
    def batch_id(self) -> str:
        """Id of the batch it learned from."""
        return f"b-{short(self.batch_digest)}"

    @property
    def candidate_id(self) -> str:
        """``c-`` and the first 12 hex digits of the digest."""
        return f"c-{short(self.digest())}"
