"""What must hold before a release is written, writing it, and ending the rollout it takes back.

Called by ``deploy/release.py`` alone, within its transaction.
"""

from datetime import datetime

from sqlalchemy import exc, update
from sqlalchemy.orm import Session

from deploy.history import read_release, release_rows
from deploy.tables import ReleaseRow, RolloutRow, Stage
from tacit.contracts import Decision, PolicyCandidate, Release, ReleaseBundle
from tacit.errors import ConflictError


def insert_release(session: Session, release: Release, bundle: ReleaseBundle) -> None:
    """Write ``release``. Raises ConflictError if another took its place in the line."""
    row = ReleaseRow(
        release_id=release.release_id,
        policy=release.policy,
        sequence=release.sequence,
        weights=release.weights,
        payload=release.model_dump_json(),
        bundle=bundle.model_dump_json(),
        created_at=release.released_at,
    )
    session.add(row)
    try:
        session.flush()
    except exc.IntegrityError as error:
        raise ConflictError(
            f"{release.release_id} to be the next release",
            got="another release made at the same time",
            mend="Look at what serves now and try again.",
        ) from error


def end_rollout(session: Session, release_id: str, *, why: str, moment: datetime) -> None:
    """Mark that a release is taken out of service before it was full; nothing if it was."""
    under_way = RolloutRow.stage.in_([Stage.SHADOW, Stage.CANARY])
    session.execute(
        update(RolloutRow)
        .where(RolloutRow.release_id == release_id, under_way)
        .values(stage=Stage.ENDED, why=why, since=moment)
    )


def check_follows(
    session: Session, candidate: PolicyCandidate, decision: Decision, top: Release | None
) -> None:
    """That ``candidate`` was trained from what serves, on an approval that was not used yet.

    Raises ConflictError.
    """
    used = [
        r
        for r in release_rows(session, candidate.policy)
        if read_release(r).decision_digest == decision.digest()
    ]
    if used:
        raise ConflictError(
            "an approval that was not used yet",
            got=f"{decision.decision_id}, which {used[-1].release_id} stands on",
            mend=f"`tacit rollback --to {used[-1].release_id}` serves those weights again.",
        )
    serving = None if top is None else top.weights
    if candidate.parent != serving:
        # Else what a rollback took out would come back inside the next candidate.
        raise ConflictError(
            f"a candidate trained from what serves now, {serving}",
            got=f"{candidate.candidate_id} trained from {candidate.parent}",
            mend="Let the next cycle train from what serves now.",
        )


def check_in_time(decision: Decision, now: datetime) -> None:
    """That ``decision`` has not expired. Raises ConflictError."""
    if decision.valid_until is not None and decision.valid_until < now:
        raise ConflictError(
            f"a promotion before the approval expired at {decision.valid_until.isoformat()}",
            got=now.isoformat(),
            mend="The next cycle makes a new candidate to decide on.",
        )
