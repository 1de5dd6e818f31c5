"""First tables."""

import sqlalchemy as sa
from alembic import op

import tacit.database

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""

    op.create_table(
        "api_keys",
        sa.Column("key_id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("secret_hash", sa.String(length=64), nullable=False),
        sa.Column("scopes", sa.String(length=64), nullable=False),
        sa.Column("source", sa.String(length=64), nullable=True),
        sa.Column("policy", sa.String(length=64), nullable=True),
        sa.Column("created_at", tacit.database.UtcDateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", tacit.database.UtcDateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("name", name=op.f("uq_api_keys_name")),
    )
    op.create_table(
        "batches",
        sa.Column("batch_id", sa.String(length=32), nullable=False),
        sa.Column("policy", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("replay", sa.Text(), nullable=False),
        sa.Column("created_at", tacit.database.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("batch_id", name=op.f("pk_batches")),
        sa.UniqueConstraint("digest", name=op.f("uq_batches_digest")),
    )
    with op.batch_alter_table("batches", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_batches_policy"), ["policy"], unique=False)

    op.create_table(
        "candidates",
        sa.Column("candidate_id", sa.String(length=32), nullable=False),
        sa.Column("policy", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("weights", sa.String(length=71), nullable=False),
        sa.Column("batch_id", sa.String(length=32), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("created_at", tacit.database.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("candidate_id", name=op.f("pk_candidates")),
        sa.UniqueConstraint("digest", name=op.f("uq_candidates_digest")),
    )
    with op.batch_alter_table("candidates", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_candidates_policy"), ["policy"], unique=False)
        batch_op.create_index(batch_op.f("ix_candidates_weights"), ["weights"], unique=False)

    op.create_table(
        "cycles",
        sa.Column("cycle_id", sa.String(length=96), nullable=False),
        sa.Column("policy", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=24), nullable=False),
        sa.Column("champion", sa.String(length=71), nullable=True),
        sa.Column("batch_id", sa.String(length=32), nullable=True),
        sa.Column("candidate_id", sa.String(length=32), nullable=True),
        sa.Column("report_id", sa.String(length=32), nullable=True),
        sa.Column("release_id", sa.String(length=96), nullable=True),
        sa.Column("mlflow_run_id", sa.String(length=64), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("created_at", tacit.database.UtcDateTime(timezone=True), nullable=False),
        sa.Column("updated_at", tacit.database.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("cycle_id", name=op.f("pk_cycles")),
    )
    with op.batch_alter_table("cycles", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_cycles_candidate_id"), ["candidate_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_cycles_policy"), ["policy"], unique=False)
        batch_op.create_index(batch_op.f("ix_cycles_state"), ["state"], unique=False)

    op.create_table(
        "dead_letters",
        sa.Column("topic", sa.String(length=128), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("occurred_at", tacit.database.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("topic", "partition", "offset", name=op.f("pk_dead_letters")),
    )
    op.create_table(
        "decisions",
        sa.Column("subject", sa.String(length=71), nullable=False),
        sa.Column("policy", sa.String(length=64), nullable=False),
        sa.Column("weights", sa.String(length=71), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("envelope", sa.Text(), nullable=False),
        sa.Column("decided_at", tacit.database.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("subject", name=op.f("pk_decisions")),
        sa.UniqueConstraint("digest", name=op.f("uq_decisions_digest")),
    )
    with op.batch_alter_table("decisions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_decisions_policy"), ["policy"], unique=False)
        batch_op.create_index(batch_op.f("ix_decisions_weights"), ["weights"], unique=False)

    op.create_table(
        "evaluation_cache",
        sa.Column("policy_digest", sa.String(length=71), nullable=False),
        sa.Column("suite_digest", sa.String(length=71), nullable=False),
        sa.Column("completions", sa.Text(), nullable=False),
        sa.Column("created_at", tacit.database.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("policy_digest", "suite_digest", name=op.f("pk_evaluation_cache")),
    )
    op.create_table(
        "events",
        sa.Column("event_key", sa.String(length=256), nullable=False),
        sa.Column("policy", sa.String(length=64), nullable=False),
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("subject_id", sa.String(length=128), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("weight", sa.Double(), nullable=False),
        sa.Column("cluster", sa.String(length=64), nullable=False),
        sa.Column("body_digest", sa.String(length=71), nullable=False),
        sa.Column("event_digest", sa.String(length=71), nullable=True),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("interaction", sa.Text(), nullable=True),
        sa.Column("interaction_id", sa.String(length=128), nullable=True),
        sa.Column("episode_id", sa.String(length=128), nullable=True),
        sa.Column("occurred_at", tacit.database.UtcDateTime(timezone=True), nullable=False),
        sa.Column("received_at", tacit.database.UtcDateTime(timezone=True), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("batch_id", sa.String(length=32), nullable=True),
        sa.PrimaryKeyConstraint("event_key", name=op.f("pk_events")),
    )
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_events_batch_id"), ["batch_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_events_cluster"), ["cluster"], unique=False)
        batch_op.create_index(batch_op.f("ix_events_episode_id"), ["episode_id"], unique=False)
        batch_op.create_index(
            batch_op.f("ix_events_interaction_id"), ["interaction_id"], unique=False
        )
        batch_op.create_index(
            "ix_events_ready", ["policy", "status", "batch_id", "sequence"], unique=False
        )
        batch_op.create_index(batch_op.f("ix_events_sequence"), ["sequence"], unique=False)
        batch_op.create_index(batch_op.f("ix_events_subject_id"), ["subject_id"], unique=False)

    op.create_table(
        "interactions",
        sa.Column("interaction_id", sa.String(length=128), nullable=False),
        sa.Column("policy", sa.String(length=64), nullable=False),
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("episode_id", sa.String(length=128), nullable=True),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("occurred_at", tacit.database.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("interaction_id", name=op.f("pk_interactions")),
    )
    with op.batch_alter_table("interactions", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_interactions_episode_id"), ["episode_id"], unique=False
        )

    op.create_table(
        "ledger",
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("subject", sa.String(length=256), nullable=False),
        sa.Column("entry", sa.Text(), nullable=False),
        sa.Column("leaf_hash", sa.String(length=64), nullable=False),
        sa.Column("root", sa.String(length=64), nullable=False),
        sa.Column("signature", sa.Text(), nullable=False),
        sa.Column("created_at", tacit.database.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_ledger")),
    )
    with op.batch_alter_table("ledger", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_ledger_kind"), ["kind"], unique=False)
        batch_op.create_index(batch_op.f("ix_ledger_subject"), ["subject"], unique=False)

    op.create_table(
        "receipts",
        sa.Column("event_key", sa.String(length=256), nullable=False),
        sa.Column("body_digest", sa.String(length=71), nullable=False),
        sa.Column("received_at", tacit.database.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("event_key", name=op.f("pk_receipts")),
    )
    op.create_table(
        "releases",
        sa.Column("release_id", sa.String(length=96), nullable=False),
        sa.Column("policy", sa.String(length=64), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("weights", sa.String(length=71), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("bundle", sa.Text(), nullable=False),
        sa.Column("created_at", tacit.database.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("release_id", name=op.f("pk_releases")),
        sa.UniqueConstraint("policy", "sequence", name=op.f("uq_releases_policy_sequence")),
    )
    with op.batch_alter_table("releases", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_releases_weights"), ["weights"], unique=False)

    op.create_table(
        "replicas",
        sa.Column("replica_id", sa.String(length=128), nullable=False),
        sa.Column("policy", sa.String(length=64), nullable=False),
        sa.Column("serving", sa.String(length=96), nullable=True),
        sa.Column("refused", sa.String(length=96), nullable=True),
        sa.Column("refusal", sa.Text(), nullable=True),
        sa.Column("seen_at", tacit.database.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("replica_id", name=op.f("pk_replicas")),
    )
    with op.batch_alter_table("replicas", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_replicas_policy"), ["policy"], unique=False)

    op.create_table(
        "reports",
        sa.Column("report_id", sa.String(length=32), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("candidate_digest", sa.String(length=71), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("created_at", tacit.database.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("report_id", name=op.f("pk_reports")),
        sa.UniqueConstraint("candidate_digest", name=op.f("uq_reports_candidate_digest")),
        sa.UniqueConstraint("digest", name=op.f("uq_reports_digest")),
    )
    op.create_table(
        "stream_positions",
        sa.Column("topic", sa.String(length=128), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("next_offset", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("topic", "partition", name=op.f("pk_stream_positions")),
    )
    op.create_table(
        "verdicts",
        sa.Column("candidate_id", sa.String(length=32), nullable=False),
        sa.Column("policy", sa.String(length=64), nullable=False),
        sa.Column("candidate_digest", sa.String(length=71), nullable=False),
        sa.Column("weights", sa.String(length=71), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("expires_at", tacit.database.UtcDateTime(timezone=True), nullable=False),
        sa.Column("created_at", tacit.database.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("candidate_id", name=op.f("pk_verdicts")),
        sa.UniqueConstraint("candidate_digest", name=op.f("uq_verdicts_candidate_digest")),
    )
    with op.batch_alter_table("verdicts", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_verdicts_policy"), ["policy"], unique=False)


def downgrade() -> None:
    """Undo."""

    with op.batch_alter_table("verdicts", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_verdicts_policy"))

    op.drop_table("verdicts")
    op.drop_table("stream_positions")
    op.drop_table("reports")
    with op.batch_alter_table("replicas", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_replicas_policy"))

    op.drop_table("replicas")
    with op.batch_alter_table("releases", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_releases_weights"))

    op.drop_table("releases")
    op.drop_table("receipts")
    with op.batch_alter_table("ledger", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_ledger_subject"))
        batch_op.drop_index(batch_op.f("ix_ledger_kind"))

    op.drop_table("ledger")
    with op.batch_alter_table("interactions", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_interactions_episode_id"))

    op.drop_table("interactions")
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_events_subject_id"))
        batch_op.drop_index(batch_op.f("ix_events_sequence"))
        batch_op.drop_index("ix_events_ready")
        batch_op.drop_index(batch_op.f("ix_events_interaction_id"))
        batch_op.drop_index(batch_op.f("ix_events_episode_id"))
        batch_op.drop_index(batch_op.f("ix_events_cluster"))
        batch_op.drop_index(batch_op.f("ix_events_batch_id"))

    op.drop_table("events")
    op.drop_table("evaluation_cache")
    with op.batch_alter_table("decisions", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_decisions_weights"))
        batch_op.drop_index(batch_op.f("ix_decisions_policy"))

    op.drop_table("decisions")
    op.drop_table("dead_letters")
    with op.batch_alter_table("cycles", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_cycles_state"))
        batch_op.drop_index(batch_op.f("ix_cycles_policy"))
        batch_op.drop_index(batch_op.f("ix_cycles_candidate_id"))

    op.drop_table("cycles")
    with op.batch_alter_table("candidates", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_candidates_weights"))
        batch_op.drop_index(batch_op.f("ix_candidates_policy"))

    op.drop_table("candidates")
    with op.batch_alter_table("batches", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_batches_policy"))

    op.drop_table("batches")
    op.drop_table("api_keys")
