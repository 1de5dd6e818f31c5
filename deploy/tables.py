"""Tables of deploy: releases and what each replica serves."""

from datetime import datetime

from sqlalchemy import String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from tacit.database import Base


class ReleaseRow(Base):
    """One release; the highest sequence of a policy line is what should serve."""

    __tablename__ = "releases"
    release_id: Mapped[str] = mapped_column(String(96), primary_key=True)
    policy: Mapped[str] = mapped_column(String(64))
    sequence: Mapped[int]
    weights: Mapped[str] = mapped_column(String(71), index=True)
    payload: Mapped[str] = mapped_column(Text)
    """Release, JSON."""
    bundle: Mapped[str] = mapped_column(Text)
    """JSON of the release bundle: everything serving verifies before it loads the weights."""
    created_at: Mapped[datetime]

    __table_args__ = (UniqueConstraint("policy", "sequence"),)


class ReplicaRow(Base):
    """What one serving replica runs, and why it refused a newer release if it did."""

    __tablename__ = "replicas"
    replica_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    policy: Mapped[str] = mapped_column(String(64), index=True)
    serving: Mapped[str | None] = mapped_column(String(96))
    """``release_id``."""
    refused: Mapped[str | None] = mapped_column(String(96))
    """``release_id`` that failed verification."""
    refusal: Mapped[str | None] = mapped_column(Text)
    seen_at: Mapped[datetime]
