"""What a replica should serve by the tables: one release, or two during a rollout.

Read at each poll, and not to be trusted: it decides which releases are verified, and nothing is
served before it is.
"""

import logging
import math
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from deploy.tables import ReleaseRow, RolloutRow, Stage

logger = logging.getLogger(__name__)


class Step(NamedTuple):
    """A stage with its share: of requests in ``shadow``, of subjects in ``canary``."""

    stage: Stage
    share: float

    def __str__(self) -> str:
        part = {Stage.SHADOW: " of requests", Stage.CANARY: " of subjects"}.get(self.stage)
        return f"{self.stage} of {self.share:.3g}{part}" if part else str(self.stage)


class Wanted(NamedTuple):
    """Ids of the releases to serve."""

    champion: str
    canary: str | None = None
    share: float = 0.0
    """Of subjects, whom the canary answers."""
    shadow_share: float = 0.0
    """Of requests, that the canary answers too, unseen."""


def read_step(stage: object, share: object) -> Step | None:
    """A step as it stands in a row; None if it makes no sense."""
    if stage not in set(Stage) or not isinstance(share, int | float):
        return None
    if not math.isfinite(share) or not 0 < share <= 1:
        return None
    return Step(Stage(str(stage)), float(share))


def wanted_of(session: Session, policy: str) -> Wanted | None:
    """What the newest release and its rollout come to; None before the first release.

    A rollout that makes no sense means the champion alone.
    """
    newest = (
        select(ReleaseRow.release_id, RolloutRow.stage, RolloutRow.share)
        .outerjoin(RolloutRow, RolloutRow.release_id == ReleaseRow.release_id)
        .where(ReleaseRow.policy == policy)
    )
    rows = session.execute(newest.order_by(ReleaseRow.sequence.desc()).limit(2)).all()
    if not rows:
        return None
    release_id, stage, share = rows[0]
    if stage in (None, Stage.FULL) or len(rows) == 1:
        return Wanted(release_id)
    champion, step = rows[1].release_id, read_step(stage, share)
    if step is None or step.stage is Stage.ENDED:
        logger.warning(
            "the rollout of %s makes no sense (%r, %r): %s answers alone",
            *(release_id, stage, share, champion),
        )
        return Wanted(champion)
    if step.stage is Stage.SHADOW:
        return Wanted(champion, release_id, shadow_share=step.share)
    return Wanted(champion, release_id, share=step.share)
