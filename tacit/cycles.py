"""The state of each cycle of the loop, kept in the database so that a restart goes on from it."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from tacit.database import Base


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
