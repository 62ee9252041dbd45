"""Schedules of pools, their classes, and budgets"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0010"
branch_labels = None
depends_on = None

# table -> (name in the triggers, id column, parent column)
TABLES = {
    "schedules": ("schedule", "id", "pool_id"),
    "schedule_runs": ("schedule_run", "id", "pool_id"),
    "budgets": ("budget", "pool_id", "pool_id"),
}
OPEN = "status IN ('planned', 'running')"


def upgrade() -> None:
    _create_schedules()
    _create_runs()
    op.create_table(
        "budgets",
        sa.Column("pool_id", sa.BigInteger(), nullable=False),
        sa.Column("dollars", sa.Numeric(12, 2), nullable=False),
        _moment("counts_from", nullable=False),
        sa.Column("warned_pct", sa.Integer(), nullable=False),
        _moment("fused_at"),
        _moment("lifted_at"),
        sa.CheckConstraint("dollars > 0", name="ck_budgets_dollars"),
        sa.ForeignKeyConstraint(["pool_id"], ["pools.id"], name="fk_budgets_pool_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("pool_id", name="pk_budgets"),
    )
    op.add_column("claims", _moment("stops_at"))
    op.add_column("claims", _moment("warned_again_at"))
    for table, (name, id_column, parent) in TABLES.items():
        for event in ("insert", "update", "delete"):
            rows = "OLD TABLE" if event == "delete" else "NEW TABLE"
            op.execute(
                f"CREATE TRIGGER notify_{name}_{event} AFTER {event.upper()} ON {table} REFERENCING {rows} AS changed "
                f"FOR EACH STATEMENT EXECUTE FUNCTION notify_lablink('{id_column}', '{parent}')"
            )


def downgrade() -> None:
    op.drop_column("claims", "warned_again_at")
    op.drop_column("claims", "stops_at")
    for table in ("budgets", "schedule_runs", "schedules"):
        op.drop_table(table)


def _create_schedules() -> None:
    op.create_table(
        "schedules",
        _id(),
        sa.Column("pool_id", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("name", "zone", "created_by")),
        sa.Column("weekdays", postgresql.ARRAY(sa.Integer()), nullable=False),
        sa.Column("starts", sa.Time(), nullable=False),
        sa.Column("stops", sa.Time(), nullable=False),
        sa.Column("first_on", sa.Date(), nullable=False),
        sa.Column("last_on", sa.Date()),
        sa.Column("skips", postgresql.ARRAY(sa.Date()), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("catch_up_s", sa.Integer(), nullable=False),
        _moment("created_at", nullable=False),
        _moment("counts_from", nullable=False),
        _moment("paused_at"),
        _moment("removed_at"),
        sa.CheckConstraint("count BETWEEN 1 AND 1000", name="ck_schedules_count"),
        sa.CheckConstraint("catch_up_s BETWEEN 0 AND 86400", name="ck_schedules_catch_up_s"),
        sa.ForeignKeyConstraint(["pool_id"], ["pools.id"], name="fk_schedules_pool_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_schedules"),
    )


def _create_runs() -> None:
    op.create_table(
        "schedule_runs",
        _id(),
        sa.Column("schedule_id", sa.BigInteger(), nullable=False),
        sa.Column("pool_id", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        _moment("starts_at", nullable=False),
        _moment("stops_at", nullable=False),
        _moment("started_at"),
        _moment("stopped_at"),
        sa.Column("note", sa.Text()),
        sa.CheckConstraint(
            "status IN ('ended', 'missed', 'planned', 'running', 'stopping')", name="ck_schedule_runs_status"
        ),
        sa.ForeignKeyConstraint(
            ["schedule_id"], ["schedules.id"], name="fk_schedule_runs_schedule_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["pool_id"], ["pools.id"], name="fk_schedule_runs_pool_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_schedule_runs"),
    )
    op.create_index("uq_schedule_runs_starts_at", "schedule_runs", ["schedule_id", "starts_at"], unique=True)
    op.create_index(
        "uq_schedule_runs_open", "schedule_runs", ["schedule_id"], unique=True, postgresql_where=sa.text(OPEN)
    )


def _id() -> sa.Column[int]:
    return sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False)


def _moment(name: str, *, nullable: bool = True) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)
