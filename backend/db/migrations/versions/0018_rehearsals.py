"""Rehearsals of classes, a pool's check command, and when the agent dialled in with a terminal"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

WHEN = sa.DateTime(timezone=True)
COMMANDS = ("end_session", "open_terminal", "prepare_session", "reboot", "restart", "start_crd", "stop")
NOTICES = {"rehearsals": ("rehearsal", "id", "pool_id"), "rehearsal_machines": ("rehearsal_machine", "id", "rehearsal_id")}


def upgrade() -> None:
    op.add_column("pools", sa.Column("check_command", sa.String()))
    op.add_column("pools", sa.Column("is_rehearsal", sa.Boolean(), server_default="false", nullable=False))
    op.add_column("terminals", sa.Column("connected_at", WHEN))
    _create_rehearsals()
    _create_machines()
    for table, (name, id_column, parent) in NOTICES.items():
        for event in ("insert", "update", "delete"):
            rows = "OLD TABLE" if event == "delete" else "NEW TABLE"
            op.execute(
                f"CREATE TRIGGER notify_{name}_{event} AFTER {event.upper()} ON {table} REFERENCING {rows} AS changed "
                f"FOR EACH STATEMENT EXECUTE FUNCTION notify_lablink('{id_column}', '{parent}')"
            )
    _allow_commands(*COMMANDS, "check_session")


def downgrade() -> None:
    op.execute("DELETE FROM commands WHERE kind = 'check_session'")
    _allow_commands(*COMMANDS)
    op.drop_table("rehearsal_machines")
    op.drop_table("rehearsals")
    op.drop_column("terminals", "connected_at")
    op.drop_column("pools", "is_rehearsal")
    op.drop_column("pools", "check_command")


def _create_rehearsals() -> None:
    op.create_table(
        "rehearsals",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("pool_id", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("people", sa.Integer(), nullable=False),
        sa.Column("over_s", sa.Integer(), nullable=False),
        sa.Column("starts_at", WHEN, nullable=False),
        sa.Column("zone", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", WHEN, nullable=False),
        sa.Column("deadline_at", WHEN, nullable=False),
        sa.Column("ended_at", WHEN),
        sa.Column("reason", sa.Text()),
        sa.Column("verdict", sa.Text()),
        sa.Column("need", postgresql.JSONB(), nullable=False),
        sa.Column("arrivals", postgresql.JSONB(), nullable=False),
        sa.Column("reasons", postgresql.JSONB(), nullable=False),
        sa.CheckConstraint("status IN ('ended', 'finished', 'running')", name=op.f("ck_rehearsals_status")),
        sa.CheckConstraint("verdict IN ('go', 'no-go')", name=op.f("ck_rehearsals_verdict")),
        sa.CheckConstraint("people BETWEEN 1 AND 2000", name=op.f("ck_rehearsals_people")),
        sa.CheckConstraint("over_s BETWEEN 0 AND 86400", name=op.f("ck_rehearsals_over_s")),
        sa.ForeignKeyConstraint(["pool_id"], ["pools.id"], name=op.f("fk_rehearsals_pool_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rehearsals")),
    )
    is_running = sa.text("status = 'running'")
    op.create_index("uq_rehearsals_running", "rehearsals", ["pool_id"], unique=True, postgresql_where=is_running)
    op.create_index("ix_rehearsals_pool_id_id", "rehearsals", ["pool_id", "id"])


def _create_machines() -> None:
    parents = {"rehearsal_id": ("rehearsals", "CASCADE"), "vm_id": ("vms", "CASCADE"), "claim_id": ("claims", "SET NULL")}
    op.create_table(
        "rehearsal_machines",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("rehearsal_id", sa.BigInteger(), nullable=False),
        sa.Column("vm_id", sa.Integer(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("step_at", WHEN, nullable=False),
        sa.Column("claim_id", sa.BigInteger()),
        sa.Column("terminal_id", sa.BigInteger()),
        sa.Column("command_id", sa.BigInteger()),
        sa.Column("connection", sa.Text()),
        sa.Column("said", sa.Text()),
        sa.Column("problem", sa.Text()),
        sa.Column("remedy", sa.Text()),
        sa.Column("ended_at", WHEN),
        sa.CheckConstraint(
            "step IN ('checked', 'claimed', 'clean', 'connected', 'given-back', 'skipped', 'waiting')",
            name=op.f("ck_rehearsal_machines_step"),
        ),
        *(
            sa.ForeignKeyConstraint(
                [column], [f"{table}.id"], name=op.f(f"fk_rehearsal_machines_{column}"), ondelete=ondelete
            )
            for column, (table, ondelete) in parents.items()
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rehearsal_machines")),
    )
    op.create_index("uq_rehearsal_machines_vm_id", "rehearsal_machines", ["rehearsal_id", "vm_id"], unique=True)
    op.create_index("ix_rehearsal_machines_vm_id", "rehearsal_machines", ["vm_id"])
    op.create_index("ix_rehearsal_machines_claim_id", "rehearsal_machines", ["claim_id"])


def _allow_commands(*kinds: str) -> None:
    for name in ("ck_commands_kind", "ck_commands_ck_commands_kind"):
        op.execute(f"ALTER TABLE commands DROP CONSTRAINT IF EXISTS {name}")
    allowed = ", ".join(f"'{kind}'" for kind in sorted(kinds))
    op.execute(f"ALTER TABLE commands ADD CONSTRAINT ck_commands_kind CHECK (kind IN ({allowed}))")
