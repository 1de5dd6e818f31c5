"""Tables of the gatekeeper: verdicts, approvals, decisions, the ledger, tokens and webhooks."""

from datetime import datetime

from sqlalchemy import BigInteger, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from tacit.database import Base


class VerdictRow(Base):
    """The verdict on one candidate, and until when a person may decide on it."""

    __tablename__ = "verdicts"
    candidate_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    policy: Mapped[str] = mapped_column(String(64), index=True)
    candidate_digest: Mapped[str] = mapped_column(String(71), unique=True)
    weights: Mapped[str] = mapped_column(String(71))
    outcome: Mapped[str] = mapped_column(String(16))
    payload: Mapped[str] = mapped_column(Text)
    """DSSE envelope over verdict, weights and expiry, JSON; the columns are for finding only."""
    expires_at: Mapped[datetime]
    created_at: Mapped[datetime]


class DecisionRow(Base):
    """The one decision on a candidate; the primary key lets exactly one of two racers win."""

    __tablename__ = "decisions"
    subject: Mapped[str] = mapped_column(String(71), primary_key=True)
    """Digest of the candidate; for a genesis decision, of policy line and weights."""
    policy: Mapped[str] = mapped_column(String(64), index=True)
    weights: Mapped[str] = mapped_column(String(71), index=True)
    outcome: Mapped[str] = mapped_column(String(16))
    digest: Mapped[str] = mapped_column(String(71), unique=True)
    payload: Mapped[str] = mapped_column(Text)
    """Decision, JSON."""
    envelope: Mapped[str] = mapped_column(Text)
    """DSSE envelope over the decision, JSON."""
    decided_at: Mapped[datetime]


class ApprovalRow(Base):
    """One person's yes to a candidate; each person has one."""

    __tablename__ = "approvals"
    candidate_digest: Mapped[str] = mapped_column(String(71), primary_key=True)
    approved_by: Mapped[str] = mapped_column(String(128), primary_key=True)
    envelope: Mapped[str] = mapped_column(Text)
    """DSSE envelope over candidate, verdict, who, why and when, JSON."""
    created_at: Mapped[datetime]


class ReviewTokenRow(Base):
    """A token that lets one reviewer decide one candidate one way, once."""

    __tablename__ = "review_tokens"
    token_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    secret_hash: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the secret, which is 256 random bits."""
    envelope: Mapped[str] = mapped_column(Text)
    """DSSE envelope over what the token is bound to, JSON."""
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class LedgerRow(Base):
    """One entry of the append-only log."""

    __tablename__ = "ledger"
    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(32), index=True)
    subject: Mapped[str] = mapped_column(String(256), index=True)
    """What the entry is about: a decision id, a release id, an event key."""
    entry: Mapped[str] = mapped_column(Text)
    """Canonical JSON; its hash is the leaf."""
    leaf_hash: Mapped[str] = mapped_column(String(64))
    root: Mapped[str] = mapped_column(String(64))
    """Root of the tree that ends with this entry."""
    signature: Mapped[str] = mapped_column(Text)
    """DSSE envelope over sequence, root, frontier and moment, JSON."""
    created_at: Mapped[datetime]


class WebhookEndpointRow(Base):
    """How far an outbound webhook has followed the ledger."""

    __tablename__ = "webhook_endpoints"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    cursor: Mapped[int] = mapped_column(BigInteger)
    """Number of the last entry looked at; -1 for none."""


class WebhookDeliveryRow(Base):
    """One message to one endpoint, and how its last try ended."""

    __tablename__ = "webhook_deliveries"
    delivery_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    endpoint: Mapped[str] = mapped_column(String(64), index=True)
    type: Mapped[str] = mapped_column(String(32))
    payload: Mapped[str] = mapped_column(Text)
    """The body as it is sent and signed."""
    state: Mapped[str] = mapped_column(String(16), index=True)
    """``pending``, ``delivered`` or ``given_up``."""
    attempts: Mapped[int]
    status_code: Mapped[int | None]
    error: Mapped[str | None] = mapped_column(Text)
    next_at: Mapped[datetime]
    created_at: Mapped[datetime]
    delivered_at: Mapped[datetime | None]
