"""What a cycle is for, and which batches a consolidated candidate folds."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Cycles so far were all updates."""
    with op.batch_alter_table("cycles") as cycles:
        cycles.add_column(
            sa.Column("purpose", sa.String(length=16), nullable=False, server_default="update")
        )
    op.create_table(
        "folds",
        sa.Column("candidate_id", sa.String(length=32), nullable=False),
        sa.Column("batch_id", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("candidate_id", "batch_id", name=op.f("pk_folds")),
    )
    op.create_index(op.f("ix_folds_batch_id"), "folds", ["batch_id"])


def downgrade() -> None:
    """Consolidations are forgotten to have been any."""
    op.drop_table("folds")
    with op.batch_alter_table("cycles") as cycles:
        cycles.drop_column("purpose")
