"""Tables of the trainer: sealed batches and candidates."""

from datetime import datetime

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from tacit.database import Base


class BatchRow(Base):
    """One sealed batch manifest and the replay examples it names."""

    __tablename__ = "batches"
    batch_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    policy: Mapped[str] = mapped_column(String(64), index=True)
    digest: Mapped[str] = mapped_column(String(71), unique=True)
    payload: Mapped[str] = mapped_column(Text)
    """SealedBatch, JSON."""
    replay: Mapped[str] = mapped_column(Text)
    """JSON array of ReplayExample in the order of the manifest."""
    created_at: Mapped[datetime]


class CandidateRow(Base):
    """One candidate."""

    __tablename__ = "candidates"
    candidate_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    policy: Mapped[str] = mapped_column(String(64), index=True)
    digest: Mapped[str] = mapped_column(String(71), unique=True)
    weights: Mapped[str] = mapped_column(String(71), index=True)
    batch_id: Mapped[str] = mapped_column(String(32), index=True)
    payload: Mapped[str] = mapped_column(Text)
    """PolicyCandidate, JSON."""
    created_at: Mapped[datetime]


class FoldRow(Base):
    """One batch whose teaching a consolidated candidate carries."""

    __tablename__ = "folds"
    candidate_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    batch_id: Mapped[str] = mapped_column(String(32), primary_key=True, index=True)
