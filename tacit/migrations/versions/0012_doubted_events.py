"""What the anchor refutes goes to quarantine; what a person releases is not doubted again."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A column, and an index over the few events that have something in it."""
    op.add_column("events", sa.Column("doubt", sa.String(16), nullable=True))
    op.create_index(
        "ix_events_doubt",
        "events",
        ["policy", "doubt", "sequence"],
        sqlite_where=sa.text("doubt IS NOT NULL"),
        postgresql_where=sa.text("doubt IS NOT NULL"),
    )


def downgrade() -> None:
    """Take back."""
    op.drop_index("ix_events_doubt", "events")
    op.drop_column("events", "doubt")
