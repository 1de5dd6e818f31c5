"""Tables of the collector: receipts, events, interactions, positions, dead letters."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Index, LargeBinary, String, Text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, Session, mapped_column

from tacit.database import Base


class ReceiptRow(Base):
    """One acknowledged event: makes the second sending of the same id answer like the first."""

    __tablename__ = "receipts"
    event_key: Mapped[str] = mapped_column(String(256), primary_key=True)
    body_digest: Mapped[str] = mapped_column(String(71))
    received_at: Mapped[datetime]


class EventRow(Base):
    """One screened event and what became of it."""

    __tablename__ = "events"
    event_key: Mapped[str] = mapped_column(String(256), primary_key=True)
    policy: Mapped[str] = mapped_column(String(64))
    source: Mapped[str] = mapped_column(String(64))
    event_id: Mapped[str] = mapped_column(String(128), index=True)
    subject_id: Mapped[str] = mapped_column(String(128), index=True)
    kind: Mapped[str] = mapped_column(String(16))
    status: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(String(64))
    """Machine-readable; None while accepted."""
    detail: Mapped[str | None] = mapped_column(Text)
    """For a person."""
    weight: Mapped[float]
    cluster: Mapped[str] = mapped_column(String(64), index=True)
    body_digest: Mapped[str] = mapped_column(String(71))
    """Of the event as sent: a second body under the same key is a conflict."""
    event_digest: Mapped[str | None] = mapped_column(String(71))
    """Of the ScreenedEvent; None while held."""
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

    __table_args__ = (Index("ix_events_ready", "policy", "status", "batch_id", "sequence"),)


class InteractionRow(Base):
    """One answer of a policy, kept for the feedback that may come."""

    __tablename__ = "interactions"
    interaction_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    policy: Mapped[str] = mapped_column(String(64))
    source: Mapped[str] = mapped_column(String(64))
    episode_id: Mapped[str | None] = mapped_column(String(128), index=True)
    payload: Mapped[str] = mapped_column(Text)
    """Interaction, JSON, redacted."""
    occurred_at: Mapped[datetime]


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


def insert_missing(session: Session, table: type[Base], rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert ``rows``, leaving out those whose primary key is there already."""
    dialect = session.get_bind().dialect.name
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    session.execute(insert(table).on_conflict_do_nothing(), rows)
