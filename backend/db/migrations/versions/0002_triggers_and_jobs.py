"""Notices on every change, and procrastinate's job tables."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from procrastinate.schema import SchemaManager

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Statement-level triggers with transition tables, one event each: Postgres allows no more. Payloads stay below its
# 8,000 bytes: 300 ids and 300 parents of up to 10 digits, with separators, are 7,200.
FUNCTION = """
CREATE FUNCTION notify_lablink() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    id_column text := TG_ARGV[0];
    parent_column text := TG_ARGV[1];
    payload text;
BEGIN
    FOR payload IN EXECUTE format(
        'SELECT json_build_object(''table'', %L, ''ids'', json_agg(id), ''parents'', json_agg(DISTINCT parent) FILTER (WHERE parent IS NOT NULL))::text
         FROM (SELECT id, parent, (row_number() OVER (ORDER BY id) - 1) / 300 AS chunk
               FROM (SELECT DISTINCT %I AS id, %s AS parent FROM changed) AS distinct_rows) AS numbered
         GROUP BY chunk',
        TG_TABLE_NAME, id_column, CASE WHEN parent_column IS NULL THEN 'NULL::bigint' ELSE quote_ident(parent_column) END)
    LOOP
        PERFORM pg_notify('lablink', payload);
    END LOOP;
    RETURN NULL;
END $$
"""

# table -> (name in the triggers, id column, parent column)
TABLES: dict[str, tuple[str, str, str | None]] = {
    "vms": ("vm", "id", "pool_id"),
    "pools": ("pool", "id", None),
    "claims": ("claim", "id", "pool_id"),
    "commands": ("command", "id", "vm_id"),
    "operations": ("operation", "id", "pool_id"),
    "operation_vms": ("operation_vm", "operation_id", None),
    "operation_logs": ("operation_log", "operation_id", None),
    "events": ("event", "id", "vm_id"),
    "admin_sessions": ("admin_session", "id", "user_id"),
    "enrolments": ("enrolment", "id", "vm_id"),
}


def upgrade() -> None:
    op.execute(FUNCTION)
    for table, (name, id_column, parent) in TABLES.items():
        arguments = ", ".join(f"'{column}'" for column in (id_column, parent) if column)
        for event in ("insert", "update", "delete"):
            rows = "OLD TABLE" if event == "delete" else "NEW TABLE"
            op.execute(
                f"CREATE TRIGGER notify_{name}_{event} AFTER {event.upper()} ON {table} "
                f"REFERENCING {rows} AS changed FOR EACH STATEMENT EXECUTE FUNCTION notify_lablink({arguments})"
            )
    _driver().execute(SchemaManager.get_schema())


def downgrade() -> None:
    raise NotImplementedError("The first schema is not taken back: drop the database instead.")


def _driver() -> Any:  # noqa: ANN401 - psycopg's own connection, for a script of many statements
    bind = op.get_bind()
    assert isinstance(bind, sa.Connection)
    return bind.connection.driver_connection
