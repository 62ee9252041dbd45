"""What is wrong with a machine, each pool's own figures for it, and thirty days of averages"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

COLUMNS = (("vms", "conditions", "[]"), ("latest_heartbeats", "watched", "{}"), ("pools", "health", "{}"))
ALWAYS = ("cpu_pct", "memory_pct", "disk_free_pct")
WITH_GPU = ("gpu_pct", "gpu_memory_pct", "gpu_temperature_c")


def upgrade() -> None:
    for table, column, default in COLUMNS:
        op.add_column(table, sa.Column(column, postgresql.JSONB(), server_default=default, nullable=False))
    # Rows of VMs are never deleted: nothing need be looked up there for each of 25 samples a second.
    op.drop_constraint("fk_health_samples_vm_id", "health_samples", type_="foreignkey")
    _alter_samples(sa.REAL())
    op.create_table(
        "health_averages",
        sa.Column("vm_id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        *(sa.Column(name, sa.REAL(), nullable=False) for name in ALWAYS),
        *(sa.Column(name, sa.REAL()) for name in WITH_GPU),
        sa.PrimaryKeyConstraint("vm_id", "at", name="pk_health_averages"),
    )
    op.create_index("ix_health_averages_at", "health_averages", ["at"])


def downgrade() -> None:
    op.drop_table("health_averages")
    _alter_samples(sa.Float())
    op.create_foreign_key(
        "fk_health_samples_vm_id", "health_samples", "vms", ["vm_id"], ["id"], ondelete="CASCADE"
    )
    for table, column, _ in COLUMNS:
        op.drop_column(table, column)


def _alter_samples(kind: sa.types.TypeEngine[float]) -> None:
    changes = ", ".join(f"ALTER {name} TYPE {kind.compile()}" for name in (*ALWAYS, *WITH_GPU))
    op.execute(f"ALTER TABLE health_samples {changes}")
