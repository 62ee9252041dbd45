"""Alembic's entry: runs on the connection that ``backend.db.migrate`` hands over."""

from __future__ import annotations

from alembic import context

from backend.models import Base


def _is_ours(name: str | None, kind: str, parents: object) -> bool:
    return not (kind == "table" and name is not None and name.startswith("procrastinate_"))


connection = context.config.attributes["connection"]
context.configure(
    connection=connection, target_metadata=Base.metadata, transaction_per_migration=True, include_name=_is_ours
)
with context.begin_transaction():
    context.run_migrations()
