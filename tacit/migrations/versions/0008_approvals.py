"""Approvals by several people, and tokens that let a reviewer decide through MLflow."""

import sqlalchemy as sa
from alembic import op

from tacit.database import UtcDateTime

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Two new tables."""
    op.create_table(
        "approvals",
        sa.Column("candidate_digest", sa.String(71), nullable=False),
        sa.Column("approved_by", sa.String(128), nullable=False),
        sa.Column("envelope", sa.Text(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("candidate_digest", "approved_by", name=op.f("pk_approvals")),
    )
    op.create_table(
        "review_tokens",
        sa.Column("token_id", sa.String(32), nullable=False),
        sa.Column("secret_hash", sa.String(64), nullable=False),
        sa.Column("envelope", sa.Text(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.Column("used_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("token_id", name=op.f("pk_review_tokens")),
    )


def downgrade() -> None:
    """Take back."""
    op.drop_table("review_tokens")
    op.drop_table("approvals")
