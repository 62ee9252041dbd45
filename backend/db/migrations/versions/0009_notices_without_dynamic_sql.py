"""Notices by a function for each table: its plan is kept, where that of dynamic SQL is made anew at every change"""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# table -> (name in the triggers, id column, parent column): all that `notify_lablink(…)` served until now. It stays for
# whatever seldom changes.
TABLES: dict[str, tuple[str, str, str | None]] = {
    "vms": ("vm", "id", "pool_id"),
    "claims": ("claim", "id", "pool_id"),
    "commands": ("command", "id", "vm_id"),
    "events": ("event", "id", "vm_id"),
    "enrolments": ("enrolment", "id", "vm_id"),
    "operation_logs": ("operation_log", "operation_id", None),
    "seat_browsers": ("seat_browser", "id", "claim_id"),
}


def upgrade() -> None:
    for table, (name, id_column, parent_column) in TABLES.items():
        op.execute(_function(table, name, id_column, parent_column or "NULL::bigint"))
        for event in ("insert", "update", "delete"):
            rows = "OLD TABLE" if event == "delete" else "NEW TABLE"
            op.execute(
                f"CREATE OR REPLACE TRIGGER notify_{name}_{event} AFTER {event.upper()} ON {table} "
                f"REFERENCING {rows} AS changed FOR EACH STATEMENT EXECUTE FUNCTION notify_{name}_changes()"
            )


def downgrade() -> None:
    for table, (name, id_column, parent_column) in TABLES.items():
        arguments = ", ".join(f"'{column}'" for column in (id_column, parent_column) if column)
        for event in ("insert", "update", "delete"):
            rows = "OLD TABLE" if event == "delete" else "NEW TABLE"
            op.execute(
                f"CREATE OR REPLACE TRIGGER notify_{name}_{event} AFTER {event.upper()} ON {table} "
                f"REFERENCING {rows} AS changed FOR EACH STATEMENT EXECUTE FUNCTION notify_lablink({arguments})"
            )
        op.execute(f"DROP FUNCTION notify_{name}_changes()")


def _function(table: str, name: str, id_column: str, parent: str) -> str:
    # Payloads stay below Postgres' 8,000 bytes: 300 ids and 300 parents of up to 10 digits, with separators, are 7,200.
    return f"""
CREATE FUNCTION notify_{name}_changes() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    payload text;
BEGIN
    FOR payload IN
        SELECT json_build_object('table', '{table}', 'ids', json_agg(id),
                                 'parents', json_agg(DISTINCT parent) FILTER (WHERE parent IS NOT NULL))::text
        FROM (SELECT id, parent, (row_number() OVER (ORDER BY id) - 1) / 300 AS chunk
              FROM (SELECT DISTINCT {id_column} AS id, {parent} AS parent FROM changed) AS distinct_rows) AS numbered
        GROUP BY chunk
    LOOP
        PERFORM pg_notify('lablink', payload);
    END LOOP;
    RETURN NULL;
END $$"""
