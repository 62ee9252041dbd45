"""What machines cost at their providers, and where database, state and cloud disagree"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

WHEN = sa.DateTime(timezone=True)
KINDS = "'changed', 'disowned', 'ghost', 'gone', 'state-lost', 'stopped', 'stranger', 'twin', 'unmanaged'"


def upgrade() -> None:
    op.create_table(
        "prices",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("price_per_hour", sa.Numeric(10, 4), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("as_of", WHEN, nullable=False),
        sa.PrimaryKeyConstraint("provider", "kind", name=op.f("pk_prices")),
        sa.CheckConstraint("price_per_hour >= 0", name=op.f("ck_prices_price_per_hour")),
    )
    op.create_table(
        "findings",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("pool_id", sa.BigInteger(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.Column("facts", postgresql.JSONB(), nullable=False),
        sa.Column("found_at", WHEN, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_findings")),
        sa.CheckConstraint(f"kind IN ({KINDS})", name=op.f("ck_findings_kind")),
        sa.ForeignKeyConstraint(["pool_id"], ["pools.id"], name=op.f("fk_findings_pool_id"), ondelete="CASCADE"),
    )
    op.create_index("uq_findings_kind_subject", "findings", ["provider", "kind", "subject"], unique=True)
    op.create_index(op.f("ix_findings_pool_id"), "findings", ["pool_id"])
    for event in ("insert", "update", "delete"):
        rows = "OLD TABLE" if event == "delete" else "NEW TABLE"
        op.execute(
            f"CREATE TRIGGER notify_finding_{event} AFTER {event.upper()} ON findings "
            f"REFERENCING {rows} AS changed FOR EACH STATEMENT EXECUTE FUNCTION notify_lablink('id', 'pool_id')"
        )
    op.drop_constraint(op.f("ck_operations_kind"), "operations")
    op.create_check_constraint(op.f("ck_operations_kind"), "operations", "kind IN ('destroy', 'launch', 'rebuild')")


def downgrade() -> None:
    op.execute("DELETE FROM operation_logs WHERE operation_id IN (SELECT id FROM operations WHERE kind = 'rebuild')")
    op.execute("DELETE FROM operations WHERE kind = 'rebuild'")
    op.drop_constraint(op.f("ck_operations_kind"), "operations")
    op.create_check_constraint(op.f("ck_operations_kind"), "operations", "kind IN ('destroy', 'launch')")
    op.drop_table("findings")
    op.drop_table("prices")
