"""Keys that expire and limit, events by id, replayed dead letters, screening counters."""

import sqlalchemy as sa
from alembic import op

import tacit.database

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    moment = tacit.database.UtcDateTime(timezone=True)
    with op.batch_alter_table("api_keys") as keys:
        keys.add_column(
            sa.Column("kind", sa.String(length=16), nullable=False, server_default="bearer")
        )
        keys.add_column(sa.Column("rate_limit_per_s", sa.Double(), nullable=True))
        keys.add_column(sa.Column("expires_at", moment, nullable=True))
    with op.batch_alter_table("dead_letters") as letters:
        letters.add_column(sa.Column("replayed_at", moment, nullable=True))
    op.create_table(
        "screening_counters",
        sa.Column("policy", sa.String(length=64), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("num_events", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("policy", "status", "reason", name="pk_screening_counters"),
    )
    _name_events()
    # Receipts are only a memory of what is in the stream, so the old ones may go.
    op.drop_table("receipts")
    op.create_table(
        "receipts",
        sa.Column("key_hash", sa.String(length=32), nullable=False),
        sa.Column("body_hash", sa.String(length=32), nullable=False),
        sa.Column("received_at_s", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key_hash", name="pk_receipts"),
        sqlite_with_rowid=False,
    )


def _name_events() -> None:
    # An event's id is its key without the source and the slash.
    op.add_column("events", sa.Column("event_id", sa.String(length=128), nullable=True))
    op.execute("UPDATE events SET event_id = substr(event_key, length(source) + 2)")
    with op.batch_alter_table("events") as events:
        events.alter_column("event_id", existing_type=sa.String(length=128), nullable=False)
        events.create_index("ix_events_event_id", ["event_id"])


def downgrade() -> None:
    """Take back."""
    moment = tacit.database.UtcDateTime(timezone=True)
    op.drop_table("receipts")
    op.create_table(
        "receipts",
        sa.Column("event_key", sa.String(length=256), nullable=False),
        sa.Column("body_digest", sa.String(length=71), nullable=False),
        sa.Column("received_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("event_key", name="pk_receipts"),
    )
    with op.batch_alter_table("events") as events:
        events.drop_index("ix_events_event_id")
        events.drop_column("event_id")
    op.drop_table("screening_counters")
    with op.batch_alter_table("dead_letters") as letters:
        letters.drop_column("replayed_at")
    with op.batch_alter_table("api_keys") as keys:
        for name in ("expires_at", "rate_limit_per_s", "kind"):
            keys.drop_column(name)
