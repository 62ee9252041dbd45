"""Alarms, and the messages about them"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

KINDS = "'budget', 'line', 'machine-failed', 'operation-failed', 'refill', 'server'"
WHEN = sa.DateTime(timezone=True)


def upgrade() -> None:
    _create_alarms()
    _create_deliveries()
    for event in ("insert", "update", "delete"):
        rows = "OLD TABLE" if event == "delete" else "NEW TABLE"
        op.execute(
            f"CREATE TRIGGER notify_alarm_{event} AFTER {event.upper()} ON alarms REFERENCING {rows} AS changed "
            "FOR EACH STATEMENT EXECUTE FUNCTION notify_lablink('id')"
        )


def downgrade() -> None:
    op.drop_table("alarm_deliveries")
    op.drop_table("alarms")


def _create_alarms() -> None:
    op.create_table(
        "alarms",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("source", "kind", "subject")),
        sa.Column("pool_id", sa.BigInteger()),
        sa.Column("operation_id", sa.BigInteger()),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("severity", "sentence", "remedy")),
        sa.Column("opened_at", WHEN, nullable=False),
        sa.Column("last_seen_at", WHEN, nullable=False),
        sa.Column("acknowledged_at", WHEN),
        sa.Column("acknowledged_by", sa.Text()),
        sa.Column("resolved_at", WHEN),
        sa.CheckConstraint(f"kind IN ({KINDS})", name="ck_alarms_kind"),
        sa.CheckConstraint("severity IN ('critical', 'info', 'warning')", name="ck_alarms_severity"),
        sa.ForeignKeyConstraint(["pool_id"], ["pools.id"], name="fk_alarms_pool_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_alarms"),
    )
    op.create_index(
        "uq_alarms_open",
        "alarms",
        ["source", "kind", "subject"],
        unique=True,
        postgresql_where=sa.text("resolved_at IS NULL"),
    )
    op.create_index("ix_alarms_resolved_at", "alarms", ["resolved_at"])


def _create_deliveries() -> None:
    op.create_table(
        "alarm_deliveries",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("alarm_id", sa.BigInteger(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("message", postgresql.JSONB(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("created_at", WHEN, nullable=False),
        sa.Column("next_at", WHEN, nullable=False),
        sa.Column("finished_at", WHEN),
        sa.Column("last_error", sa.Text()),
        sa.CheckConstraint("channel IN ('email', 'webhook')", name="ck_alarm_deliveries_channel"),
        sa.CheckConstraint("status IN ('given-up', 'queued', 'sent')", name="ck_alarm_deliveries_status"),
        sa.ForeignKeyConstraint(
            ["alarm_id"], ["alarms.id"], name="fk_alarm_deliveries_alarm_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_alarm_deliveries"),
    )
    op.create_index(
        "ix_alarm_deliveries_due",
        "alarm_deliveries",
        ["channel", "next_at"],
        postgresql_where=sa.text("status = 'queued'"),
    )
    op.create_index("ix_alarm_deliveries_alarm_id", "alarm_deliveries", ["alarm_id"])
