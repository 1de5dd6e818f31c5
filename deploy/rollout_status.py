"""A rollout under way as people look at it: the stage, the evidence and what is still needed."""

from pydantic import ValidationError

from deploy.history import release_rows
from deploy.rollout import Rollout, RolloutDesk, following
from deploy.shadow import COUNTS
from deploy.tables import Stage
from tacit.config import RolloutSettings
from tacit.contracts import ArmComparison, RolloutStatus, ShadowCounts


def rollout_status(
    desk: RolloutDesk, policy: str, settings: RolloutSettings
) -> RolloutStatus | None:
    """The rollout under way. Raises ConflictError if what stands in the database makes no sense."""
    rollout = desk.under_way(policy)
    if rollout is None:
        return None
    with desk.database.reader() as session:
        champion = release_rows(session, policy, limit=2)[-1].release_id
    row = desk.shadow(rollout.release_id)
    shadow = None
    if row is not None:
        shadow = ShadowCounts.model_validate({name: getattr(row, name) for name in COUNTS})
    evidence = _evidence(rollout)
    return RolloutStatus(
        release_id=rollout.release_id,
        champion=champion,
        stage="shadow" if rollout.step.stage is Stage.SHADOW else "canary",
        share=rollout.step.share,
        since=rollout.since,
        why=rollout.why,
        following=str(following(rollout.step, settings)),
        needs=_needs(rollout, shadow, evidence, settings),
        shadow=shadow,
        evidence=evidence,
    )


def _evidence(rollout: Rollout) -> ArmComparison | None:
    try:
        return (rollout.evidence and ArmComparison.model_validate_json(rollout.evidence)) or None
    except ValidationError:
        return None


def _needs(
    rollout: Rollout,
    shadow: ShadowCounts | None,
    evidence: ArmComparison | None,
    settings: RolloutSettings,
) -> str:
    if rollout.step.stage is Stage.SHADOW:
        compared = 0 if shadow is None else shadow.num_compared
        return f"{max(settings.min_shadow - compared, 0)} more comparisons"
    said = 0 if evidence is None else evidence.canary.num_feedback
    parts = []
    if said < settings.min_feedback:
        parts.append(f"{settings.min_feedback - said} more pieces of feedback on the canary")
    if evidence is None:
        return parts[0] if parts else "a first look at the feedback"
    parts.append(
        f"to go on, a loss that is surely below {100 * evidence.margin:.1f} points (now at most "
        f"{-100 * evidence.difference_low:.1f})"
    )
    parts.append(f"to roll back, evidence of {1 / evidence.alpha:.0f} (now {evidence.e_value:.3g})")
    return "; ".join(parts)
