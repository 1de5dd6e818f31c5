"""Rollouts: the stage each release is at, what shadows came to, the canary of each replica."""

import sqlalchemy as sa
from alembic import op

from tacit.database import UtcDateTime

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_COUNTS = ("compared", "agreed", "dropped")


def upgrade() -> None:
    """Two new tables and two columns."""
    op.create_table(
        "rollouts",
        sa.Column("release_id", sa.String(96), nullable=False),
        sa.Column("policy", sa.String(64), nullable=False),
        sa.Column("stage", sa.String(16), nullable=False),
        sa.Column("share", sa.Double(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("evidence", sa.Text(), nullable=True),
        sa.Column("since", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("release_id", name=op.f("pk_rollouts")),
    )
    op.create_index(op.f("ix_rollouts_policy"), "rollouts", ["policy"])
    op.create_table(
        "shadow_counts",
        sa.Column("release_id", sa.String(96), nullable=False),
        *(sa.Column(f"num_{name}", sa.Integer(), nullable=False) for name in _COUNTS),
        *(
            sa.Column(f"{arm}_{name}", kind, nullable=False)
            for name, kind in (("errors", sa.Integer()), ("tokens", sa.Integer()))
            for arm in ("champion", "canary")
        ),
        *(sa.Column(f"{arm}_s", sa.Double(), nullable=False) for arm in ("champion", "canary")),
        sa.PrimaryKeyConstraint("release_id", name=op.f("pk_shadow_counts")),
    )
    op.add_column("replicas", sa.Column("canary", sa.String(96), nullable=True))
    op.add_column("replicas", sa.Column("canary_share", sa.Double(), nullable=True))


def downgrade() -> None:
    """Take back."""
    op.drop_column("replicas", "canary_share")
    op.drop_column("replicas", "canary")
    op.drop_table("shadow_counts")
    op.drop_table("rollouts")
