"""Tables of the evaluator: reports, and cached answers of policies."""

from datetime import datetime

from sqlalchemy import Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from tacit.database import Base


class ReportRow(Base):
    """One report."""

    __tablename__ = "reports"
    report_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    digest: Mapped[str] = mapped_column(String(71), unique=True)
    candidate_digest: Mapped[str] = mapped_column(String(71), unique=True)
    payload: Mapped[str] = mapped_column(Text)
    """EvalReport, JSON."""
    created_at: Mapped[datetime]


class ReportOutlineRow(Base):
    """A report without its items."""

    __tablename__ = "report_outlines"
    __table_args__ = (Index(None, "policy", "created_at"),)
    report_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    policy: Mapped[str] = mapped_column(String(64))
    payload: Mapped[str] = mapped_column(Text)
    """ReportOutline, JSON."""
    created_at: Mapped[datetime]


class EvaluationCacheRow(Base):
    """What a policy answered to a question; a policy digest never changes its answers."""

    __tablename__ = "evaluation_cache"
    policy_digest: Mapped[str] = mapped_column(String(71), primary_key=True)
    question_digest: Mapped[str] = mapped_column(String(71), primary_key=True)
    """Of prompt, choices and decoding configuration."""
    answer: Mapped[str] = mapped_column(Text)
    """Answer, JSON."""
    created_at: Mapped[datetime]
