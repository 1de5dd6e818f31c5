"""Reports without their items, so that a history of many is read at once."""

import json

import sqlalchemy as sa
from alembic import op

import tacit.database

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_KEPT = ("policy", "weights", "champion", "anchor", "created_at")


def upgrade() -> None:
    """Outlines of the reports there are."""
    outlines = op.create_table(
        "report_outlines",
        sa.Column("report_id", sa.String(length=32), nullable=False),
        sa.Column("policy", sa.String(length=64), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("created_at", tacit.database.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("report_id", name=op.f("pk_report_outlines")),
    )
    op.create_index(
        op.f("ix_report_outlines_policy_created_at"), "report_outlines", ["policy", "created_at"]
    )
    reports = sa.table(
        "reports",
        sa.column("report_id"),
        sa.column("digest"),
        sa.column("payload"),
        sa.column("created_at", tacit.database.UtcDateTime(timezone=True)),
    )
    for row in op.get_bind().execute(sa.select(reports)).all():
        report = json.loads(row.payload)
        outline = {key: report[key] for key in _KEPT} | {
            "report_digest": row.digest,
            "suites": [{**suite, "items": []} for suite in report["suites"]],
        }
        values = {
            "report_id": row.report_id,
            "policy": report["policy"],
            "payload": json.dumps(outline, ensure_ascii=False),
            "created_at": row.created_at,
        }
        op.execute(outlines.insert().values(values))


def downgrade() -> None:
    """Take back."""
    op.drop_table("report_outlines")
