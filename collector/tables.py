"""Tables of the collector: receipts, events, clusters, interactions, positions, dead letters."""

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    Index,
    LargeBinary,
    String,
    Text,
    literal_column,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from tacit.database import Base


class ReceiptRow(Base):
    """One acknowledged event: makes the second sending of the same id answer like the first.

    Keys come in random order, so rows are as small as they can be.
    """

    __tablename__ = "receipts"
    __table_args__ = {"sqlite_with_rowid": False}
    key_hash: Mapped[str] = mapped_column(String(32), primary_key=True)
    """First half of the SHA-256 of the event key, in hex."""
    body_hash: Mapped[str] = mapped_column(String(32))
    """First half of the SHA-256 of the event as sent, in hex."""
    received_at_s: Mapped[int] = mapped_column(BigInteger)
    """Seconds since 1970."""


class EventRow(Base):
    """One screened event and what became of it."""

    __tablename__ = "events"
    event_key: Mapped[str] = mapped_column(String(256), primary_key=True)
    policy: Mapped[str] = mapped_column(String(64))
    source: Mapped[str] = mapped_column(String(64))
    event_id: Mapped[str] = mapped_column(String(128), index=True)
    subject_id: Mapped[str] = mapped_column(String(128))
    kind: Mapped[str] = mapped_column(String(16))
    status: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(String(64))
    """A ``collector.reasons.Reason``; None while accepted or held out."""
    detail: Mapped[str | None] = mapped_column(Text)
    """For a person."""
    trust: Mapped[float]
    """What the subject had earned when the event was screened, 0 to 1."""
    weight: Mapped[float]
    """Of the example in training: ``trust``, shared with others on the interaction when sealed."""
    undoubted: Mapped[float | None]
    """What ``weight`` would be if no other feedback contradicted the event; None if none does."""
    reward: Mapped[float | None]
    """Of an outcome or a rating, in [-1, 1]: more is better, whatever way its metric counts."""
    cluster: Mapped[str] = mapped_column(String(64))
    about: Mapped[str | None] = mapped_column(String(32), index=True)
    """Hash of the interaction's source and id, or of its content where it has no id; None while not
    joined, and where screening is off."""
    said: Mapped[str | None] = mapped_column(String(32), index=True)
    """Hash of who said which kind of thing about what: the second time weighs nothing."""
    answer: Mapped[str | None] = mapped_column(String(32))
    """Hash of the normalised answer that the event teaches, if it teaches one."""
    body_digest: Mapped[str] = mapped_column(String(71))
    """Of the event as sent: a second body under the same key is a conflict."""
    event_digest: Mapped[str | None] = mapped_column(String(71))
    """Of the ScreenedEvent as a batch took it; None before."""
    payload: Mapped[str] = mapped_column(Text)
    """Redacted FeedbackEvent, JSON."""
    interaction: Mapped[str | None] = mapped_column(Text)
    """InlineInteraction the event is about, JSON; None while held."""
    interaction_id: Mapped[str | None] = mapped_column(String(128), index=True)
    episode_id: Mapped[str | None] = mapped_column(String(128), index=True)
    occurred_at: Mapped[datetime]
    received_at: Mapped[datetime]
    sequence: Mapped[int] = mapped_column(BigInteger, index=True)
    """Order of screening; batches are filled in this order."""
    batch_id: Mapped[str | None] = mapped_column(String(32), index=True)
    """The one batch that trains on it."""
    doubt: Mapped[str | None] = mapped_column(String(16))
    """A ``collector.reasons.Doubt``; None for nearly all."""

    __table_args__ = (
        # With all columns that counting needs, so that it never reads the wide rows.
        Index("ix_events_ready", "policy", "status", "batch_id", "sequence", "kind"),
        Index(
            "ix_events_by_subject",
            *("subject_id", "policy", "status", "kind", "batch_id", "sequence", "source"),
        ),
        Index(
            "ix_events_by_cluster",
            *("cluster", "policy", "status", "kind", "batch_id", "sequence"),
        ),
        Index(
            "ix_events_trained",
            *("policy", "sequence"),
            sqlite_where=text("batch_id IS NOT NULL"),
            postgresql_where=text("batch_id IS NOT NULL"),
        ),
        Index(
            "ix_events_doubt",
            *("policy", "doubt", "sequence"),
            sqlite_where=text("doubt IS NOT NULL"),
            postgresql_where=text("doubt IS NOT NULL"),
        ),
        Index(
            "ix_events_held_since",
            *("policy", "reason", "received_at"),
            sqlite_where=text("status = 'held'"),
            postgresql_where=text("status = 'held'"),
        ),
        Index(
            "ix_events_held_by",
            *("policy", "source", "subject_id"),
            sqlite_where=text("status = 'held'"),
            postgresql_where=text("status = 'held'"),
        ),
    )


IS_HELD = EventRow.status == literal_column("'held'")
"""Spelled out rather than bound, or SQLite would not use the indices on held rows alone."""


class ClusterRow(Base):
    """The first prompt of a near-duplicate cluster."""

    __tablename__ = "clusters"
    policy: Mapped[str] = mapped_column(String(64), primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    """In order of appearance; of two that are like a prompt the lower one is its cluster."""
    cluster: Mapped[str] = mapped_column(String(64))
    sketch: Mapped[bytes] = mapped_column(LargeBinary)
    """MinHash values, 128 little-endian 32-bit integers."""


class ClusterBandRow(Base):
    """Where to look for clusters that a prompt may belong to."""

    __tablename__ = "cluster_bands"
    __table_args__ = {"sqlite_with_rowid": False}
    policy: Mapped[str] = mapped_column(String(64), primary_key=True)
    band: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True)


class InteractionRow(Base):
    """One answer of a policy, kept for the feedback that may come."""

    __tablename__ = "interactions"
    interaction_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    policy: Mapped[str] = mapped_column(String(64))
    source: Mapped[str] = mapped_column(String(64))
    episode_id: Mapped[str | None] = mapped_column(String(128))
    payload: Mapped[str] = mapped_column(Text)
    """Interaction, JSON, redacted."""
    occurred_at: Mapped[datetime]

    __table_args__ = (
        Index(
            "ix_interactions_of_episode",
            *("episode_id", "source", "policy", "occurred_at"),
        ),
    )


class StreamPositionRow(Base):
    """Next offset to read; written in the transaction that writes what was read."""

    __tablename__ = "stream_positions"
    topic: Mapped[str] = mapped_column(String(128), primary_key=True)
    partition: Mapped[int] = mapped_column(primary_key=True)
    next_offset: Mapped[int] = mapped_column(BigInteger)


class DeadLetterRow(Base):
    """A record that could not be parsed or contradicts an earlier one, with the reason."""

    __tablename__ = "dead_letters"
    topic: Mapped[str] = mapped_column(String(128), primary_key=True)
    partition: Mapped[int] = mapped_column(primary_key=True)
    offset: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    payload: Mapped[bytes] = mapped_column(LargeBinary)
    reason: Mapped[str] = mapped_column(String(64))
    detail: Mapped[str] = mapped_column(Text)
    occurred_at: Mapped[datetime]
    replayed_at: Mapped[datetime | None]
    """When it was last put back into the stream."""


class ScreeningCounterRow(Base):
    """How many judgements ended so, ever; moves in the transaction that writes the events."""

    __tablename__ = "screening_counters"
    policy: Mapped[str] = mapped_column(String(64), primary_key=True)
    status: Mapped[str] = mapped_column(String(16), primary_key=True)
    reason: Mapped[str] = mapped_column(String(64), primary_key=True)
    """Machine-readable; empty where the status needs none."""
    num_events: Mapped[int] = mapped_column(BigInteger)
