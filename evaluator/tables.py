"""Tables of the evaluator: reports, and cached answers of champion and anchor."""

from datetime import datetime

from sqlalchemy import String, Text
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


class EvaluationCacheRow(Base):
    """What a policy answered to a suite; a policy digest never changes its answers."""

    __tablename__ = "evaluation_cache"
    policy_digest: Mapped[str] = mapped_column(String(71), primary_key=True)
    suite_digest: Mapped[str] = mapped_column(String(71), primary_key=True)
    completions: Mapped[str] = mapped_column(Text)
    """JSON array of completions in the order of the suite's items."""
    created_at: Mapped[datetime]
