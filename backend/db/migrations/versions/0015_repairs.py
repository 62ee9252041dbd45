"""Repairs of machines, the breakers of pools, and the command that restarts a workload"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

WHEN = sa.DateTime(timezone=True)
COMMANDS = ("end_session", "open_terminal", "prepare_session", "reboot", "start_crd", "stop")
ALARMS = ("budget", "line", "machine-failed", "operation-failed", "refill", "server")
NOTICES = {"repairs": ("repair", "id", "vm_id"), "healing_breakers": ("healing_breaker", "pool_id", "pool_id")}


def upgrade() -> None:
    empty = sa.text("'{}'::jsonb")
    op.add_column("pools", sa.Column("healing", postgresql.JSONB(), server_default=empty, nullable=False))
    _create_repairs()
    _create_breakers()
    for table, (name, id_column, parent) in NOTICES.items():
        for event in ("insert", "update", "delete"):
            rows = "OLD TABLE" if event == "delete" else "NEW TABLE"
            op.execute(
                f"CREATE TRIGGER notify_{name}_{event} AFTER {event.upper()} ON {table} REFERENCING {rows} AS changed "
                f"FOR EACH STATEMENT EXECUTE FUNCTION notify_lablink('{id_column}', '{parent}')"
            )
    _allow("commands", (*COMMANDS, "restart"))
    _allow("alarms", (*ALARMS, "healing"))


def downgrade() -> None:
    op.execute("DELETE FROM commands WHERE kind = 'restart'")
    op.execute("DELETE FROM alarms WHERE kind = 'healing'")
    _allow("alarms", ALARMS)
    _allow("commands", COMMANDS)
    op.drop_table("healing_breakers")
    op.drop_table("repairs")
    op.drop_column("pools", "healing")


def _create_repairs() -> None:
    op.create_table(
        "repairs",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("pool_id", sa.BigInteger(), nullable=False),
        sa.Column("vm_id", sa.Integer(), nullable=False),
        sa.Column("rung", sa.Text(), nullable=False),
        sa.Column("is_last", sa.Boolean(), nullable=False),
        sa.Column("cause", sa.Text()),
        sa.Column("began_at", WHEN, nullable=False),
        sa.Column("deadline_at", WHEN, nullable=False),
        sa.Column("replacement_id", sa.Integer()),
        sa.Column("ended_at", WHEN),
        *(sa.Column(name, sa.Text()) for name in ("outcome", "fault", "reason")),
        sa.CheckConstraint("rung IN ('reboot', 'replace', 'restart')", name=op.f("ck_repairs_rung")),
        sa.CheckConstraint("outcome IN ('failed', 'overtaken', 'succeeded')", name=op.f("ck_repairs_outcome")),
        sa.CheckConstraint("fault IN ('not-destroyed', 'not-made', 'not-well')", name=op.f("ck_repairs_fault")),
        sa.ForeignKeyConstraint(["pool_id"], ["pools.id"], name=op.f("fk_repairs_pool_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["vm_id"], ["vms.id"], name=op.f("fk_repairs_vm_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["replacement_id"], ["vms.id"], name=op.f("fk_repairs_replacement_id"), ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_repairs")),
    )
    is_open = sa.text("ended_at IS NULL")
    op.create_index("uq_repairs_open", "repairs", ["vm_id"], unique=True, postgresql_where=is_open)
    op.create_index("ix_repairs_pool_id_began_at", "repairs", ["pool_id", "began_at"])
    op.create_index("ix_repairs_vm_id", "repairs", ["vm_id"])
    op.create_index("ix_repairs_replacement_id", "repairs", ["replacement_id"])


def _create_breakers() -> None:
    op.create_table(
        "healing_breakers",
        sa.Column("pool_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("opened_at", WHEN),
        sa.Column("reason", sa.Text()),
        sa.Column("trial_at", WHEN),
        sa.Column("trials", sa.Integer(), nullable=False),
        sa.Column("closed_at", WHEN),
        sa.ForeignKeyConstraint(["pool_id"], ["pools.id"], name=op.f("fk_healing_breakers_pool_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("pool_id", name=op.f("pk_healing_breakers")),
    )


def _allow(table: str, kinds: tuple[str, ...]) -> None:
    # The one of alarms was made under a name that says the table twice.
    for name in (f"ck_{table}_kind", f"ck_{table}_ck_{table}_kind"):
        op.execute(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {name}")
    allowed = ", ".join(f"'{kind}'" for kind in sorted(kinds))
    op.execute(f"ALTER TABLE {table} ADD CONSTRAINT ck_{table}_kind CHECK (kind IN ({allowed}))")
