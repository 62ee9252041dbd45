"""The first schema"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "api_tokens",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("role IN ('admin', 'operator', 'viewer')", name=op.f("ck_api_tokens_role")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_tokens")),
        sa.UniqueConstraint("name", name=op.f("uq_api_tokens_name")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_api_tokens_token_hash")),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("pool_id", sa.BigInteger(), nullable=True),
        sa.Column("vm_id", sa.BigInteger(), nullable=True),
        sa.Column("claim_id", sa.BigInteger(), nullable=True),
        sa.Column("operation_id", sa.BigInteger(), nullable=True),
        sa.Column("data", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    op.create_index("ix_events_at", "events", ["at"], unique=False)
    op.create_index("ix_events_operation_id_id", "events", ["operation_id", "id"], unique=False)
    op.create_index("ix_events_vm_id_id", "events", ["vm_id", "id"], unique=False)
    op.create_table(
        "login_failures",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_login_failures")),
    )
    op.create_index("ix_login_failures_key_at", "login_failures", ["key", "at"], unique=False)
    op.create_table(
        "pools",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("max", sa.Integer(), nullable=False),
        sa.Column("available_min", sa.Integer(), nullable=False),
        sa.Column("price_per_hour", sa.Numeric(precision=10, scale=4), nullable=False),
        sa.Column("boot_deadline_s", sa.Integer(), nullable=False),
        sa.Column("unreachable_grace_s", sa.Integer(), nullable=False),
        sa.Column("startup_script", sa.String(), nullable=True),
        sa.Column("repository", sa.String(), nullable=True),
        sa.Column("next_number", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("status IN ('closed', 'open')", name=op.f("ck_pools_status")),
        sa.CheckConstraint("available_min BETWEEN 0 AND max", name=op.f("ck_pools_available_min")),
        sa.CheckConstraint("max BETWEEN 1 AND 1000", name=op.f("ck_pools_max")),
        sa.CheckConstraint("price_per_hour >= 0", name=op.f("ck_pools_price_per_hour")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pools")),
        sa.UniqueConstraint("name", name=op.f("uq_pools_name")),
    )
    op.create_table(
        "users",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("role IN ('admin', 'operator', 'viewer')", name=op.f("ck_users_role")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("name", name=op.f("uq_users_name")),
    )
    op.create_table(
        "admin_sessions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("address", sa.Text(), nullable=True),
        sa.Column("user_agent", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_admin_sessions_user_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_admin_sessions")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_admin_sessions_token_hash")),
    )
    op.create_index(op.f("ix_admin_sessions_user_id"), "admin_sessions", ["user_id"], unique=False)
    op.create_table(
        "operations",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("pool_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=True),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("kind IN ('destroy', 'launch')", name=op.f("ck_operations_kind")),
        sa.CheckConstraint(
            "status IN ('cancelled', 'failed', 'queued', 'running', 'succeeded')", name=op.f("ck_operations_status")
        ),
        sa.ForeignKeyConstraint(["pool_id"], ["pools.id"], name=op.f("fk_operations_pool_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operations")),
    )
    op.create_index(
        "ix_operations_open",
        "operations",
        ["id"],
        unique=False,
        postgresql_where=sa.text("status IN ('queued', 'running')"),
    )
    op.create_table(
        "vms",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("hostname", sa.String(length=255), nullable=False),
        sa.Column("email", sa.String(length=255), nullable=True),
        sa.Column("status", sa.String(length=50), nullable=False),
        sa.Column("crd_command", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("pool_id", sa.BigInteger(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("status_changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("health", sa.Text(), nullable=True),
        sa.Column("health_reasons", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("unreachable_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("boot_id", sa.Text(), nullable=True),
        sa.Column("agent_version", sa.Text(), nullable=True),
        sa.Column("first_heartbeat_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("destroyed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("price_per_hour", sa.Numeric(precision=10, scale=4), nullable=False),
        sa.Column("facts", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.CheckConstraint("crd_command = 'set'", name=op.f("ck_vms_crd_command")),
        sa.CheckConstraint("health IN ('degraded', 'healthy', 'unhealthy')", name=op.f("ck_vms_health")),
        sa.CheckConstraint("origin IN ('joined', 'terraform')", name=op.f("ck_vms_origin")),
        sa.CheckConstraint(
            "status IN ('available', 'booting', 'cleaning', 'destroyed', 'destroying', 'failed', 'in-use', 'provisioning', 'quarantined')",
            name=op.f("ck_vms_status"),
        ),
        sa.ForeignKeyConstraint(["pool_id"], ["pools.id"], name=op.f("fk_vms_pool_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vms")),
    )
    op.create_index(
        "ix_vms_offer",
        "vms",
        ["pool_id", "health", "status_changed_at"],
        unique=False,
        postgresql_where=sa.text("status = 'available'"),
    )
    op.create_index("ix_vms_pool_id_status", "vms", ["pool_id", "status"], unique=False)
    op.create_index(
        "uq_vms_hostname", "vms", ["hostname"], unique=True, postgresql_where=sa.text("status <> 'destroyed'")
    )
    op.create_table(
        "claims",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("pool_id", sa.BigInteger(), nullable=False),
        sa.Column("vm_id", sa.Integer(), nullable=True),
        sa.Column("email", sa.String(length=255), nullable=False),
        sa.Column("owner_hash", sa.LargeBinary(), nullable=True),
        sa.Column("idempotency_hash", sa.LargeBinary(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("status_changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('active', 'expired', 'failed', 'preparing', 'released', 'waiting')",
            name=op.f("ck_claims_status"),
        ),
        sa.ForeignKeyConstraint(["pool_id"], ["pools.id"], name=op.f("fk_claims_pool_id")),
        sa.ForeignKeyConstraint(["vm_id"], ["vms.id"], name=op.f("fk_claims_vm_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_claims")),
    )
    op.create_index(
        "ix_claims_line", "claims", ["pool_id", "id"], unique=False, postgresql_where=sa.text("status = 'waiting'")
    )
    op.create_index("ix_claims_owner_hash", "claims", ["owner_hash"], unique=False)
    op.create_index(
        "uq_claims_idempotency",
        "claims",
        ["pool_id", "idempotency_hash"],
        unique=True,
        postgresql_where=sa.text("status IN ('active', 'preparing', 'waiting')"),
    )
    op.create_index(
        "uq_claims_open_email",
        "claims",
        ["pool_id", sa.literal_column("lower(email)")],
        unique=True,
        postgresql_where=sa.text("status IN ('active', 'preparing', 'waiting')"),
    )
    op.create_index(
        "uq_claims_open_owner",
        "claims",
        ["pool_id", "owner_hash"],
        unique=True,
        postgresql_where=sa.text("status IN ('active', 'preparing', 'waiting')"),
    )
    op.create_index(
        "uq_claims_open_vm",
        "claims",
        ["vm_id"],
        unique=True,
        postgresql_where=sa.text("status IN ('active', 'preparing')"),
    )
    op.create_table(
        "enrolments",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("pool_id", sa.BigInteger(), nullable=False),
        sa.Column("vm_id", sa.Integer(), nullable=True),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("used_boot_id", sa.String(), nullable=True),
        sa.Column("agent_token_hash", sa.LargeBinary(), nullable=True),
        sa.Column("confirmed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["pool_id"], ["pools.id"], name=op.f("fk_enrolments_pool_id")),
        sa.ForeignKeyConstraint(["vm_id"], ["vms.id"], name=op.f("fk_enrolments_vm_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_enrolments")),
        sa.UniqueConstraint("agent_token_hash", name=op.f("uq_enrolments_agent_token_hash")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_enrolments_token_hash")),
    )
    op.create_index(op.f("ix_enrolments_vm_id"), "enrolments", ["vm_id"], unique=False)
    op.create_table(
        "health_samples",
        sa.Column("vm_id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("cpu_pct", sa.Float(), nullable=False),
        sa.Column("memory_pct", sa.Float(), nullable=False),
        sa.Column("disk_free_pct", sa.Float(), nullable=False),
        sa.Column("gpu_pct", sa.Float(), nullable=True),
        sa.Column("gpu_memory_pct", sa.Float(), nullable=True),
        sa.Column("gpu_temperature_c", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["vm_id"], ["vms.id"], name=op.f("fk_health_samples_vm_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("vm_id", "at", name=op.f("pk_health_samples")),
    )
    op.create_index("ix_health_samples_at", "health_samples", ["at"], unique=False, postgresql_using="brin")
    op.create_table(
        "latest_heartbeats",
        sa.Column("vm_id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("boot_id", sa.Text(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("health", sa.Text(), nullable=False),
        sa.Column("reasons", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("gpus", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("cpu_pct", sa.Float(), nullable=False),
        sa.Column("memory_pct", sa.Float(), nullable=False),
        sa.Column("disk_free_pct", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["vm_id"], ["vms.id"], name=op.f("fk_latest_heartbeats_vm_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("vm_id", name=op.f("pk_latest_heartbeats")),
        postgresql_with={"fillfactor": "50"},
    )
    op.create_table(
        "operation_logs",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("operation_id", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("level", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["operation_id"], ["operations.id"], name=op.f("fk_operation_logs_operation_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operation_logs")),
    )
    op.create_index("ix_operation_logs_operation_id_id", "operation_logs", ["operation_id", "id"], unique=False)
    op.create_table(
        "operation_vms",
        sa.Column("operation_id", sa.BigInteger(), nullable=False),
        sa.Column("vm_id", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("elapsed_s", sa.Float(), nullable=False),
        sa.CheckConstraint("state IN ('done', 'failed', 'pending', 'running')", name=op.f("ck_operation_vms_state")),
        sa.ForeignKeyConstraint(
            ["operation_id"], ["operations.id"], name=op.f("fk_operation_vms_operation_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["vm_id"], ["vms.id"], name=op.f("fk_operation_vms_vm_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("operation_id", "vm_id", name=op.f("pk_operation_vms")),
    )
    op.create_index(op.f("ix_operation_vms_vm_id"), "operation_vms", ["vm_id"], unique=False)
    op.create_table(
        "vm_logs",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("vm_id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("line", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["vm_id"], ["vms.id"], name=op.f("fk_vm_logs_vm_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vm_logs")),
    )
    op.create_index("ix_vm_logs_vm_id_id", "vm_logs", ["vm_id", "id"], unique=False)
    op.create_table(
        "commands",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("vm_id", sa.Integer(), nullable=False),
        sa.Column("claim_id", sa.BigInteger(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("payload", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("data", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.CheckConstraint(
            "kind IN ('end_session', 'prepare_session', 'reboot', 'stop')", name=op.f("ck_commands_kind")
        ),
        sa.CheckConstraint(
            "status IN ('delivered', 'expired', 'failed', 'queued', 'succeeded')", name=op.f("ck_commands_status")
        ),
        sa.ForeignKeyConstraint(["claim_id"], ["claims.id"], name=op.f("fk_commands_claim_id")),
        sa.ForeignKeyConstraint(["vm_id"], ["vms.id"], name=op.f("fk_commands_vm_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commands")),
    )
    op.create_index(
        "ix_commands_open",
        "commands",
        ["vm_id", "id"],
        unique=False,
        postgresql_where=sa.text("status IN ('delivered', 'queued')"),
    )
    op.create_table(
        "seat_links",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("claim_id", sa.BigInteger(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["claim_id"], ["claims.id"], name=op.f("fk_seat_links_claim_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_seat_links")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_seat_links_token_hash")),
    )
    op.create_index(op.f("ix_seat_links_claim_id"), "seat_links", ["claim_id"], unique=False)


def downgrade() -> None:
    raise NotImplementedError("The first schema is not taken back: drop the database instead.")
