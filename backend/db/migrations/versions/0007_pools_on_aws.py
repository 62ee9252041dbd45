"""What a pool on AWS is made of"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("pools", sa.Column("aws", postgresql.JSONB(), server_default="{}", nullable=False))
    op.alter_column("pools", "aws", server_default=None)


def downgrade() -> None:
    op.drop_column("pools", "aws")
