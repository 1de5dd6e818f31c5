"""Tables of deploy: releases, their rollouts, and what each replica serves."""

from datetime import datetime
from enum import StrEnum

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
    canary: Mapped[str | None] = mapped_column(String(96))
    """``release_id`` that stands beside the one it serves."""
    canary_share: Mapped[float | None]
    """Of the subjects, whom that one answers here."""
    seen_at: Mapped[datetime]


class Stage(StrEnum):
    """How far a release has come; the last two are terminal."""

    SHADOW = "shadow"
    CANARY = "canary"
    FULL = "full"
    ENDED = "ended"
    """Taken out of service before it was full."""


class RolloutRow(Base):
    """How far a release has come that does not answer all requests at once."""

    __tablename__ = "rollouts"
    release_id: Mapped[str] = mapped_column(String(96), primary_key=True)
    policy: Mapped[str] = mapped_column(String(64), index=True)
    stage: Mapped[str] = mapped_column(String(16))
    """A :class:`Stage`."""
    share: Mapped[float]
    """Of requests in ``shadow``, of subjects in ``canary``."""
    why: Mapped[str] = mapped_column(Text)
    """It moved to this stage."""
    evidence: Mapped[str | None] = mapped_column(Text)
    """Summary of the test of this stage so far, JSON."""
    since: Mapped[datetime]
    """When the stage began."""


class ShadowRow(Base):
    """What came out where both releases of a rollout answered, summed over all replicas."""

    __tablename__ = "shadow_counts"
    release_id: Mapped[str] = mapped_column(String(96), primary_key=True)
    num_compared: Mapped[int]
    """Requests that both answered."""
    num_agreed: Mapped[int]
    """Of those, with the same text."""
    num_dropped: Mapped[int]
    """Requests that nobody compared, so that users did not wait for it."""
    champion_errors: Mapped[int]
    canary_errors: Mapped[int]
    champion_tokens: Mapped[int]
    """In the answers that were compared."""
    canary_tokens: Mapped[int]
    champion_s: Mapped[float]
    """Seconds that they took, one answer after another."""
    canary_s: Mapped[float]
