"""Events keep the reward of their outcome or rating.

Events screened before have none: of those the trainer reads it off the feedback, as it did.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("events", sa.Column("reward", sa.Double(), nullable=True))


def downgrade() -> None:
    """Take back."""
    op.drop_column("events", "reward")
