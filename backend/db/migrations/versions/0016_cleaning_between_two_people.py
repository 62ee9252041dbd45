"""A pool's cleaning script, and how long cleaning may take"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("pools", sa.Column("cleaning_script", sa.String()))
    op.add_column("pools", sa.Column("cleaning_deadline_s", sa.Integer(), nullable=False, server_default="300"))


def downgrade() -> None:
    op.drop_column("pools", "cleaning_deadline_s")
    op.drop_column("pools", "cleaning_script")
