"""PolicyCandidate: a checkpoint that wants to be served, and everything needed to rebuild it."""

from typing import Annotated, Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from tacit.contracts.base import Contract, Digest, Name, Part, UtcDatetime, short
from tacit.contracts.report import Comparison

Alpha = Annotated[float, Field(gt=0, le=1)]
"""Share of an update that is taken: 0 would be the parent, 1 is the policy as it was trained."""


class VariantResult(Part):
    """What one variant between parent and trained policy was measured at."""

    alpha: Alpha
    weights: Digest
    stands: bool
    """Whether it was shown to keep what the champion knows."""
    why: str
    versus_champion: dict[Name, Comparison]
    """By regression suite."""


class VariantChoice(Part):
    """Which share of an update became the candidate, and why."""

    alpha: Alpha
    trained: Digest
    """Weights as they were trained: those at alpha 1."""
    reason: str
    variants: tuple[VariantResult, ...]
    """In the order they were measured; empty where nothing was."""


class Fold(Part):
    """An update that was folded, with others or alone, into a full checkpoint."""

    weights: Digest
    """The adapter as it was promoted."""
    batch_digest: Digest
    """What it learned from."""


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
    """Versions of the libraries that took part, and the kind of processor."""
    metrics: dict[str, float]
    """Final training metrics; names are those of ``tacit.tracking``."""
    choice: VariantChoice | None = None
    """None where there was nothing to choose from: the weights are as they were trained."""
    folds: tuple[Fold, ...] = ()
    """Of a consolidation: the updates since the last full checkpoint, oldest first."""
    mlflow_run_id: str | None = None
    created_at: UtcDatetime

    @model_serializer(mode="wrap")
    def _without_what_is_empty(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Candidates made before there were variants or folds keep their digests.
        tree: dict[str, Any] = serialize(self)
        if tree["choice"] is None:
            del tree["choice"]
        if not tree["folds"]:
            del tree["folds"]
        return tree

    @property
    def alpha(self) -> float:
        """Share of the update in ``weights``."""
        return 1.0 if self.choice is None else self.choice.alpha

    @property
    def trained(self) -> Digest:
        """What training gave, before any interpolation."""
        return self.weights if self.choice is None else self.choice.trained

    @property
    def batch_id(self) -> str:
        """Id of the batch it learned from."""
        return f"b-{short(self.batch_digest)}"

    @property
    def candidate_id(self) -> str:
        """``c-`` and the first 12 hex digits of the digest."""
        return f"c-{short(self.digest())}"
