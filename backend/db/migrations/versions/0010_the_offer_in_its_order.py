"""The offer of a pool in the very order in which it is taken, so that a claim reads one entry instead of sorting all"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _renew(["pool_id", sa.text("health DESC"), "status_changed_at", "id"])


def downgrade() -> None:
    _renew(["pool_id", "health", "status_changed_at"])


def _renew(columns: list[str | sa.TextClause]) -> None:
    op.drop_index("ix_vms_offer", table_name="vms")
    op.create_index("ix_vms_offer", "vms", columns, postgresql_where=sa.text("status = 'available'"))
