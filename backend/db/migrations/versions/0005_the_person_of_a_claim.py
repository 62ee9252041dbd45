"""Who claimed, where that was proven"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("claims", sa.Column("person", sa.Text(), nullable=True))
    op.create_index(
        "uq_claims_open_person",
        "claims",
        ["pool_id", "person"],
        unique=True,
        postgresql_where=sa.text("status IN ('active', 'preparing', 'waiting')"),
    )


def downgrade() -> None:
    op.drop_column("claims", "person")
