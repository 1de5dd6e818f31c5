"""RolloutStatus: how far a release has come that does not answer all requests yet."""

from typing import Annotated, Literal

from pydantic import Field

from tacit.contracts.base import Contract, Part, UtcDatetime
from tacit.contracts.live import ArmComparison

_Count = Annotated[int, Field(ge=0)]
_Seconds = Annotated[float, Field(ge=0)]


class ShadowCounts(Part):
    """What came out where both releases answered and nobody saw the canary's answer."""

    num_compared: _Count
    num_agreed: _Count
    """Of those, with the same text."""
    num_dropped: _Count
    """Not compared, so that no user waited for it."""
    champion_errors: _Count
    canary_errors: _Count
    champion_tokens: _Count
    """In the answers that were compared."""
    canary_tokens: _Count
    champion_s: _Seconds
    """Seconds that these took, one answer after another."""
    canary_s: _Seconds


class RolloutStatus(Contract):
    """A rollout under way."""

    release_id: str
    champion: str
    """``release_id`` of what answers everybody else."""
    stage: Literal["shadow", "canary"]
    share: Annotated[float, Field(gt=0, le=1)]
    """Of requests in ``shadow``, of subjects in ``canary``."""
    since: UtcDatetime
    """When the stage began."""
    why: str
    """It moved to this stage."""
    following: str
    """The stage after it."""
    needs: str
    """What the stage still waits for."""
    shadow: ShadowCounts | None
    """None before the first comparison."""
    evidence: ArmComparison | None
    """None before the first look at live feedback."""
