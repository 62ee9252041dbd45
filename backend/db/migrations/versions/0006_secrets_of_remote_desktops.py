"""Codes and PINs of Chrome Remote Desktop are forgotten with what they were for"""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Here and not in the services: a command ends in several of them, and none may forget to forget.
    _forget("commands", "forget_sealed", "NEW.payload := NEW.payload - 'sealed';", "finished_at")
    _forget("claims", "forget_crd_pin", "NEW.crd_pin := NULL;", "ended_at")


def downgrade() -> None:
    for table, name in (("commands", "forget_sealed"), ("claims", "forget_crd_pin")):
        op.execute(f"DROP TRIGGER {name} ON {table}")
        op.execute(f"DROP FUNCTION {name}()")


def _forget(table: str, name: str, statement: str, ended: str) -> None:
    op.execute(
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {statement} RETURN NEW; END $$"
    )
    op.execute(
        f"CREATE TRIGGER {name} BEFORE UPDATE ON {table} FOR EACH ROW "
        f"WHEN (NEW.{ended} IS NOT NULL) EXECUTE FUNCTION {name}()"
    )
