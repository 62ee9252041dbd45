"""Logs of machines: a row for each batch of lines, numbered, with a head that stays and a tail that moves"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

# Far below what one batch may hold, so that the numbers of its lines stay apart.
LINES = 500


def upgrade() -> None:
    op.rename_table("vm_logs", "vm_logs_of_lines")
    for kind, old, new in (
        ("INDEX", "ix_vm_logs_vm_id_id", "ix_vm_logs_of_lines"),
        ("INDEX", "pk_vm_logs", "pk_vm_logs_of_lines"),
    ):
        op.execute(f"ALTER {kind} {old} RENAME TO {new}")
    _create_batches()
    _create_sources()
    op.execute(_GATHER)
    op.execute(_COUNT)
    op.drop_table("vm_logs_of_lines")


def downgrade() -> None:
    op.rename_table("vm_logs", "vm_logs_of_batches")
    op.execute("ALTER INDEX ix_vm_logs_vm_id_id RENAME TO ix_vm_logs_of_batches")
    op.execute("ALTER INDEX pk_vm_logs RENAME TO pk_vm_logs_of_batches")
    op.create_table(
        "vm_logs",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("vm_id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("line", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["vm_id"], ["vms.id"], name="fk_vm_logs_vm_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_vm_logs"),
    )
    op.create_index("ix_vm_logs_vm_id_id", "vm_logs", ["vm_id", "id"])
    op.execute(_SPREAD)
    op.drop_table("vm_logs_of_batches")
    op.drop_table("vm_log_sources")


def _create_batches() -> None:
    op.create_table(
        "vm_logs",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("vm_id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("first_seq", sa.BigInteger(), nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.Column("is_head", sa.Boolean(), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("lines", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["vm_id"], ["vms.id"], name="fk_vm_logs_vm_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_vm_logs"),
    )
    op.create_index("ix_vm_logs_vm_id_id", "vm_logs", ["vm_id", "id"])


def _create_sources() -> None:
    op.create_table(
        "vm_log_sources",
        sa.Column("vm_id", sa.Integer(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("stream", sa.Text(), server_default=sa.text("''"), nullable=False),
        *(
            sa.Column(name, sa.BigInteger(), server_default=sa.text("0"), nullable=False)
            for name in ("last_seq", "head_bytes", "tail_bytes")
        ),
        sa.Column("carry", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.ForeignKeyConstraint(["vm_id"], ["vms.id"], name="fk_vm_log_sources_vm_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("vm_id", "source", name="pk_vm_log_sources"),
    )


_GATHER = f"""
INSERT INTO vm_logs (vm_id, at, source, stream, first_seq, last_seq, is_head, bytes, lines)
SELECT vm_id, max(at), source, '', min(seq), max(seq), false, sum(octet_length(line) + 20) + 100,
       json_agg(json_build_array((extract(epoch FROM at) * 1000)::bigint, line) ORDER BY id)::text
FROM (SELECT *, row_number() OVER (PARTITION BY vm_id, source ORDER BY id) AS seq FROM vm_logs_of_lines) AS numbered
GROUP BY vm_id, source, (seq - 1) / {LINES}
ORDER BY min(id)"""
_COUNT = """
INSERT INTO vm_log_sources (vm_id, source, last_seq, tail_bytes)
SELECT vm_id, source, max(last_seq), sum(bytes) FROM vm_logs GROUP BY vm_id, source"""
_SPREAD = """
INSERT INTO vm_logs (vm_id, at, source, line)
SELECT vm_id, to_timestamp((line ->> 0)::bigint / 1000.0), source, line ->> 1
FROM vm_logs_of_batches, json_array_elements(lines::json) WITH ORDINALITY AS each(line, place)
ORDER BY id, place"""
