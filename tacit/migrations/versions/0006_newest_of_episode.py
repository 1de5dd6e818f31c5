"""The newest interaction of an episode, and the candidate of a batch, are found by index alone."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """The new index begins with the episode, so the old one is not needed."""
    op.create_index(
        "ix_interactions_of_episode",
        "interactions",
        ["episode_id", "source", "policy", "occurred_at"],
    )
    op.drop_index("ix_interactions_episode_id", table_name="interactions")
    op.create_index(op.f("ix_candidates_batch_id"), "candidates", ["batch_id"])


def downgrade() -> None:
    """Take back."""
    op.drop_index(op.f("ix_candidates_batch_id"), table_name="candidates")
    op.create_index(op.f("ix_interactions_episode_id"), "interactions", ["episode_id"])
    op.drop_index("ix_interactions_of_episode", table_name="interactions")
