"""The stages between an approval and all of the traffic: shadow, canary, full.

The release itself is signed and never changed. Where it stands is a row of ``rollouts`` that the
loop or a person moves, always within a transaction and with a line in the ledger; serving polls it
with the releases (``deploy/watch.py``). The row can choose between two approved releases and
nothing else: one that makes no sense means that the champion answers alone.
"""

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import update
from sqlalchemy.orm import Session

from deploy.admit import end_rollout
from deploy.history import top_release
from deploy.release import Journal
from deploy.tables import RolloutRow, ShadowRow, Stage
from deploy.wanted import Step, read_step
from tacit.config import RolloutSettings
from tacit.contracts import Release, utc_now
from tacit.database import Database
from tacit.errors import ConflictError, NotFoundError


class Rollout(NamedTuple):
    """Where a release stands."""

    release_id: str
    step: Step
    why: str
    """It moved to this stage."""
    evidence: str | None
    """Summary of the test of this stage so far, JSON."""
    since: datetime
    """When the stage began."""

    @property
    def under_way(self) -> bool:
        """Whether the champion still answers."""
        return self.step.stage in {Stage.SHADOW, Stage.CANARY}


def plan(settings: RolloutSettings) -> list[Step]:
    """All steps of a rollout in order; the last is ``full``."""
    shadow = [Step(Stage.SHADOW, settings.shadow_share)] if settings.shadow_share else []
    canaries = [Step(Stage.CANARY, share) for share in settings.canary_shares]
    return [*shadow, *canaries, Step(Stage.FULL, 1.0)]


def following(step: Step, settings: RolloutSettings) -> Step:
    """The step after ``step``, also where the settings changed meanwhile: never a smaller share."""
    return next(
        after
        for after in plan(settings)
        if after.stage is Stage.FULL
        or (
            after.stage is Stage.CANARY and (step.stage is Stage.SHADOW or after.share > step.share)
        )
    )


class RolloutDesk:
    """Begins rollouts and moves them; the only writer of the ``rollouts`` table."""

    def __init__(
        self, db: Database, journal: Journal, *, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self.database = db
        self._journal = journal
        self._clock = clock

    def begin(self, session: Session, release: Release, settings: RolloutSettings) -> None:
        """Put ``release`` at its first stage, in the transaction that makes it.

        Nothing where all of the traffic is the first stage, or where it has begun already.
        """
        first = plan(settings)[0]
        if first.stage is Stage.FULL or session.get(RolloutRow, release.release_id) is not None:
            return
        row = RolloutRow(
            release_id=release.release_id,
            policy=release.policy,
            stage=first.stage,
            share=first.share,
            why="approved",
            evidence=None,
            since=self._clock(),
        )
        session.add(row)
        session.flush()
        self._note(session, release.release_id, first, why="approved", by=release.released_by)

    def of(self, release_id: str) -> Rollout | None:
        """The rollout of a release; None if it answered all requests at once.

        Raises ConflictError if what stands in the database makes no sense.
        """
        with self.database.reader() as session:
            row = session.get(RolloutRow, release_id)
        return None if row is None else _read(row)

    def under_way(self, policy: str) -> Rollout | None:
        """The rollout of the newest release, while the champion still answers."""
        with self.database.reader() as session:
            top = top_release(session, policy)
        found = None if top is None else self.of(top.release_id)
        return found if found is not None and found.under_way else None

    def move(self, session: Session, rollout: Rollout, step: Step, *, why: str, by: str) -> None:
        """Take ``rollout`` to ``step`` in the caller's transaction.

        Raises ConflictError if it is no longer where ``rollout`` says.
        """
        here = (
            (RolloutRow.release_id == rollout.release_id)
            & (RolloutRow.stage == rollout.step.stage)
            & (RolloutRow.share == rollout.step.share)
        )
        values = {"stage": step.stage, "share": step.share, "why": why, "since": self._clock()}
        # Evidence is that of a stage; that of an ended one stays to be read.
        kept = {} if step.stage is Stage.ENDED else {"evidence": None}
        done = session.execute(update(RolloutRow).where(here).values(**values, **kept))
        if done.rowcount != 1:  # type: ignore[attr-defined]
            raise ConflictError(
                f"{rollout.release_id} at {rollout.step}",
                got="another stage",
                mend="Look at it again: `tacit rollout`.",
            )
        self._note(session, rollout.release_id, step, why=why, by=by)

    def end(self, release_id: str, *, why: str) -> None:
        """Let the champion answer alone, where the release cannot be rolled back yet."""
        with self.database.session() as session:
            end_rollout(session, release_id, why=why, moment=self._clock())

    def note(self, rollout: Rollout, evidence: str) -> None:
        """Keep the summary of the test of this stage, for people to look at."""
        here = (RolloutRow.release_id == rollout.release_id) & (RolloutRow.since == rollout.since)
        with self.database.session() as session:
            session.execute(update(RolloutRow).where(here).values(evidence=evidence))

    def shadow(self, release_id: str) -> ShadowRow | None:
        """What the comparisons of a release with its champion have come to."""
        with self.database.reader() as session:
            return session.get(ShadowRow, release_id)

    def finish(self, policy: str, *, by: str, reason: str, seen: str | None = None) -> Rollout:
        """Let the release under way answer all requests at once, without waiting for evidence.

        ``seen`` is the release that the caller means. Raises NotFoundError with no rollout under
        way, ConflictError if it is that of another release or has moved meanwhile.
        """
        rollout = self.under_way(policy)
        if rollout is None:
            raise NotFoundError("a rollout under way", got="none", mend="`tacit releases`.")
        if seen is not None and seen != rollout.release_id:
            raise ConflictError(f"the rollout of {rollout.release_id}", got=f"that of {seen}")
        with self.database.session() as session:
            self.move(session, rollout, Step(Stage.FULL, 1.0), why=reason, by=by)
        return rollout

    def _note(self, session: Session, release_id: str, step: Step, *, why: str, by: str) -> None:
        body: dict[str, object] = {"stage": step.stage.value, "share": step.share}
        self._journal(session, "rollout", release_id, {**body, "by": by, "reason": why})


def _read(row: RolloutRow) -> Rollout:
    step = read_step(row.stage, row.share)
    if step is None:
        raise ConflictError(
            f"a stage and a share that make sense in the rollout of {row.release_id}",
            got=f"{row.stage!r} and {row.share!r}",
            mend="Roll back: `tacit rollback`.",
        )
    return Rollout(row.release_id, step, row.why, row.evidence, row.since)
