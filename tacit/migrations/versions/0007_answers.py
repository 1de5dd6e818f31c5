"""Answers of policies are cached by question, so that suites may be asked in parts and may grow."""

import sqlalchemy as sa
from alembic import op

import tacit.database

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """What was cached by suite is asked again."""
    op.drop_table("evaluation_cache")
    _create("question_digest", "answer")


def downgrade() -> None:
    """What was cached by question is asked again."""
    op.drop_table("evaluation_cache")
    _create("suite_digest", "completions")


def _create(key: str, value: str) -> None:
    op.create_table(
        "evaluation_cache",
        sa.Column("policy_digest", sa.String(length=71), nullable=False),
        sa.Column(key, sa.String(length=71), nullable=False),
        sa.Column(value, sa.Text(), nullable=False),
        sa.Column("created_at", tacit.database.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("policy_digest", key, name=op.f("pk_evaluation_cache")),
    )
