"""Look up what a VM was told, by kind, without reading every command there ever was"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_commands_vm_id_kind_id", "commands", ["vm_id", "kind", "id"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_commands_vm_id_kind_id", table_name="commands")
