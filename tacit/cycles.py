"""The state of each cycle of the loop, kept in the database so that a restart goes on from it."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import String, Text, exc, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from tacit.contracts import Purpose, utc_now
from tacit.database import Base, Database
from tacit.errors import ConflictError, NotFoundError


class LostCycleError(ConflictError):
    """Another loop moved the cycle; this one must stop."""


class CycleState(StrEnum):
    """Where a cycle is; the last three are terminal."""

    COLLECTING = "collecting"
    TRAINING = "training"
    EVALUATING = "evaluating"
    AWAITING_DECISION = "awaiting_decision"
    PROMOTING = "promoting"
    PROMOTED = "promoted"
    REJECTED = "rejected"
    FAILED = "failed"

    @property
    def terminal(self) -> bool:
        """Whether nothing follows."""
        return self in {CycleState.PROMOTED, CycleState.REJECTED, CycleState.FAILED}


class CycleRow(Base):
    """One cycle: from collecting feedback to a served, rejected or failed candidate."""

    __tablename__ = "cycles"
    cycle_id: Mapped[str] = mapped_column(String(96), primary_key=True)
    policy: Mapped[str] = mapped_column(String(64), index=True)
    number: Mapped[int]
    state: Mapped[str] = mapped_column(String(24), index=True)
    purpose: Mapped[str] = mapped_column(String(16), default="update")
    """``update``: learn from feedback. ``consolidation``: fold the adapters promoted so far."""
    champion: Mapped[str | None] = mapped_column(String(71))
    """Weights that served when the batch was sealed: parent and baseline."""
    batch_id: Mapped[str | None] = mapped_column(String(32))
    candidate_id: Mapped[str | None] = mapped_column(String(32), index=True)
    report_id: Mapped[str | None] = mapped_column(String(32))
    release_id: Mapped[str | None] = mapped_column(String(96))
    mlflow_run_id: Mapped[str | None] = mapped_column(String(64))
    reason: Mapped[str | None] = mapped_column(Text)
    """Why it was rejected or failed."""
    attempts: Mapped[int]
    """Tries of the present state."""
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class CycleStore:
    """Opens cycles and moves them from state to state."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def latest(self, policy: str) -> CycleRow | None:
        """The newest cycle of a policy line."""
        with self._database.reader() as session:
            return _latest(session, policy)

    def last_ended(self, policy: str) -> CycleRow | None:
        """The newest cycle of a policy line that reached a terminal state."""
        ended = [state for state in CycleState if state.terminal]
        query = select(CycleRow).where(CycleRow.policy == policy, CycleRow.state.in_(ended))
        with self._database.reader() as session:
            return session.scalar(query.order_by(CycleRow.number.desc()).limit(1))

    def get(self, cycle_id: str) -> CycleRow:
        """One cycle. Raises NotFoundError."""
        with self._database.reader() as session:
            row = session.get(CycleRow, cycle_id)
        if row is None:
            raise NotFoundError("a cycle", got=cycle_id)
        return row

    def of_candidate(self, candidate_id: str) -> CycleRow | None:
        """The cycle that made a candidate."""
        with self._database.reader() as session:
            return session.scalar(select(CycleRow).where(CycleRow.candidate_id == candidate_id))

    def resume_or_open(self, policy: str) -> CycleRow:
        """The cycle that was under way, or a new one in ``collecting``."""
        try:
            with self._database.session() as session:
                row = _current(session, policy)
                session.add(row)
        except exc.IntegrityError:  # whoever gave it a purpose was first
            with self._database.reader() as session:
                row = _current(session, policy)
        return row

    def collecting(self, session: Session, policy: str) -> CycleRow:
        """The cycle that collects or, where none is under way, the next, which is not kept yet.

        Raises ConflictError when the cycle under way has its batch already.
        """
        cycle = _current(session, policy)
        if cycle.state != CycleState.COLLECTING:
            raise ConflictError(
                "a loop that is collecting",
                got=f"cycle {cycle.cycle_id}, which is {cycle.state}",
                mend="Try again once it has ended; a candidate that waits ends with a decision.",
            )
        return cycle

    def designate(self, session: Session, cycle: CycleRow, purpose: Purpose) -> None:
        """Give a purpose to a cycle that :meth:`collecting` returned.

        Raises LostCycleError if it has got its batch since.
        """
        session.add(cycle)
        session.flush()
        self._update(session, cycle, purpose=purpose)

    def purpose(self, session: Session, cycle: CycleRow) -> str:
        """The purpose of ``cycle`` now; it cannot change until the caller's transaction ends."""
        here = select(CycleRow.purpose).where(CycleRow.cycle_id == cycle.cycle_id)
        return session.scalars(here.with_for_update()).one()

    def move(self, session: Session, cycle: CycleRow, state: CycleState, **fields: Any) -> None:
        """Take ``cycle`` to ``state`` in the caller's transaction.

        Raises LostCycleError if it is no longer where ``cycle`` says: another loop moved it.
        """
        self._update(session, cycle, state=state, attempts=0, **fields)

    def note(self, cycle: CycleRow, **fields: Any) -> None:
        """Set fields without leaving the state."""
        with self._database.session() as session:
            self._update(session, cycle, **fields)

    def _update(self, session: Session, cycle: CycleRow, **fields: Any) -> None:
        here = (CycleRow.cycle_id == cycle.cycle_id) & (CycleRow.state == cycle.state)
        done = session.execute(update(CycleRow).where(here).values(updated_at=utc_now(), **fields))
        if done.rowcount != 1:  # type: ignore[attr-defined]
            raise LostCycleError(
                f"cycle {cycle.cycle_id} in state {cycle.state}",
                got="another state",
                mend="Only one loop may run for a policy line; stop the other one.",
            )


def _current(session: Session, policy: str) -> CycleRow:
    """The cycle under way, or the next one, which is not in the session."""
    latest = _latest(session, policy)
    if latest is not None and not CycleState(latest.state).terminal:
        return latest
    number = 1 if latest is None else latest.number + 1
    return CycleRow(
        cycle_id=f"{policy}-{number}",
        policy=policy,
        number=number,
        state=CycleState.COLLECTING,
        purpose="update",
        attempts=0,
        created_at=utc_now(),
        updated_at=utc_now(),
    )


def _latest(session: Session, policy: str) -> CycleRow | None:
    newest = select(CycleRow).where(CycleRow.policy == policy).order_by(CycleRow.number.desc())
    return session.scalar(newest.limit(1))
