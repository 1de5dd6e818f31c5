"""Feedback that is doubted for a while is rehearsed at full weight once it is not any more."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A column; what was doubted before keeps the weight that it was learned with."""
    op.add_column("events", sa.Column("undoubted", sa.Double(), nullable=True))


def downgrade() -> None:
    """Take back."""
    op.drop_column("events", "undoubted")
