"""What screening counts by: trust, interaction, saying, answer; clusters of near-duplicates.

Clusters begin with the next event: what was screened before keeps the cluster of its exact prompt.
"""

import hashlib
import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_TRAINED = sa.text("batch_id IS NOT NULL")
_HELD = sa.text("status = 'held'")
_CHUNK = 1_000


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "clusters",
        sa.Column("policy", sa.String(length=64), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("cluster", sa.String(length=64), nullable=False),
        sa.Column("sketch", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("policy", "number", name="pk_clusters"),
    )
    op.create_table(
        "cluster_bands",
        sa.Column("policy", sa.String(length=64), nullable=False),
        sa.Column("band", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("policy", "band", "number", name="pk_cluster_bands"),
        sqlite_with_rowid=False,
    )
    op.add_column("events", sa.Column("trust", sa.Double(), nullable=True))
    for name in ("about", "said", "answer"):
        op.add_column("events", sa.Column(name, sa.String(length=32), nullable=True))
    op.execute("UPDATE events SET trust = weight")
    _tell_what_was_said()
    with op.batch_alter_table("events") as events:
        events.alter_column("trust", existing_type=sa.Double(), nullable=False)
        for name in ("ix_events_subject_id", "ix_events_cluster", "ix_events_ready"):
            events.drop_index(name)
    _create_indices()


def _create_indices() -> None:
    counted = ["policy", "status", "kind", "batch_id", "sequence"]
    op.create_index("ix_events_about", "events", ["about"])
    op.create_index("ix_events_said", "events", ["said"])
    op.create_index(
        "ix_events_ready", "events", ["policy", "status", "batch_id", "sequence", "kind"]
    )
    op.create_index("ix_events_by_subject", "events", ["subject_id", *counted, "source"])
    op.create_index("ix_events_by_cluster", "events", ["cluster", *counted])
    for name, columns, rows in (
        ("ix_events_trained", ["policy", "sequence"], _TRAINED),
        ("ix_events_held_since", ["policy", "reason", "received_at"], _HELD),
        ("ix_events_held_by", ["policy", "source", "subject_id"], _HELD),
    ):
        op.create_index(name, "events", columns, sqlite_where=rows, postgresql_where=rows)


def _tell_what_was_said() -> None:
    """Fill ``about`` and ``said`` of events that were joined, as screening does."""
    connection = op.get_bind()
    columns = "event_key, source, subject_id, interaction_id, interaction, payload"
    page = sa.text(
        f"SELECT {columns} FROM events WHERE interaction IS NOT NULL AND event_key > :after "
        f"ORDER BY event_key LIMIT {_CHUNK}"
    )
    write = sa.text("UPDATE events SET about = :about, said = :said WHERE event_key = :key")
    after = ""
    while rows := connection.execute(page, {"after": after}).mappings().all():
        connection.execute(write, [_said(dict(row)) for row in rows])
        after = rows[-1]["event_key"]


def _said(row: dict[str, Any]) -> dict[str, str]:
    interaction, feedback = json.loads(row["interaction"]), json.loads(row["payload"])["feedback"]
    if row["interaction_id"] is not None:
        about = _hash("id", row["interaction_id"])
    else:
        messages = [part for m in interaction["prompt"] for part in (m["role"], m["content"])]
        about = _hash("content", *messages, interaction["completion"])
    kind = feedback["type"]
    said = _hash(row["source"], row["subject_id"], kind, feedback.get("metric", ""), about)
    return {"key": row["event_key"], "about": about, "said": said}


def _hash(*parts: str) -> str:
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()[:32]


def downgrade() -> None:
    """Take back."""
    with op.batch_alter_table("events") as events:
        for name in ("about", "said", "ready", "by_subject", "by_cluster"):
            events.drop_index(f"ix_events_{name}")
        for name in ("trained", "held_since", "held_by"):
            events.drop_index(f"ix_events_{name}")
        for name in ("trust", "about", "said", "answer"):
            events.drop_column(name)
        events.create_index("ix_events_subject_id", ["subject_id"])
        events.create_index("ix_events_cluster", ["cluster"])
        events.create_index("ix_events_ready", ["policy", "status", "batch_id", "sequence"])
    op.drop_table("cluster_bands")
    op.drop_table("clusters")
