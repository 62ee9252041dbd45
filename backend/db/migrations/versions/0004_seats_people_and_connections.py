"""Who may claim, whose a seat is, how it is reached, and who the admins are"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

WHEN = sa.DateTime(timezone=True)

# table -> (name in the triggers, parent column)
TABLES: dict[str, tuple[str, str | None]] = {
    "join_codes": ("join_code", "pool_id"),
    "roster_entries": ("roster_entry", "pool_id"),
    "seat_browsers": ("seat_browser", "claim_id"),
    "terminals": ("terminal", "claim_id"),
    "terminal_watches": ("terminal_watch", "claim_id"),
    "users": ("user", None),
    "invites": ("invite", None),
    "api_tokens": ("api_token", None),
}


def upgrade() -> None:
    _pools_and_claims()
    _admission()
    _seats()
    _people()
    _commands()
    for table, (name, parent) in TABLES.items():
        arguments = ", ".join(f"'{column}'" for column in ("id", parent) if column)
        for event in ("insert", "update", "delete"):
            rows = "OLD TABLE" if event == "delete" else "NEW TABLE"
            op.execute(
                f"CREATE TRIGGER notify_{name}_{event} AFTER {event.upper()} ON {table} "
                f"REFERENCING {rows} AS changed FOR EACH STATEMENT EXECUTE FUNCTION notify_lablink({arguments})"
            )


def downgrade() -> None:
    raise NotImplementedError("Seats would be lost: restore a backup instead.")


def _pools_and_claims() -> None:
    op.add_column("pools", sa.Column("access", sa.Text(), nullable=False, server_default="open"))
    op.add_column("pools", sa.Column("terminal", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("pools", sa.Column("crd", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("pools", sa.Column("url_template", sa.Text(), nullable=True))
    op.add_column("pools", sa.Column("claim_duration_s", sa.Integer(), nullable=True))
    op.add_column("pools", sa.Column("idle_limit_s", sa.Integer(), nullable=True))
    op.add_column("pools", sa.Column("oidc_group", sa.Text(), nullable=True))
    op.create_check_constraint(op.f("ck_pools_access"), "pools", "access IN ('code', 'oidc', 'open', 'roster')")
    for column in ("access", "terminal", "crd"):
        op.alter_column("pools", column, server_default=None)
    op.add_column("claims", sa.Column("key_hash", sa.LargeBinary(), nullable=True))
    op.add_column("claims", sa.Column("ends_at", WHEN, nullable=True))
    op.add_column("claims", sa.Column("warned_at", WHEN, nullable=True))
    op.add_column("claims", sa.Column("last_active_at", WHEN, nullable=True))
    op.add_column("claims", sa.Column("crd_status", sa.Text(), nullable=True))
    op.add_column("claims", sa.Column("crd_detail", sa.Text(), nullable=True))
    op.add_column("claims", sa.Column("crd_link", sa.Text(), nullable=True))
    op.add_column("claims", sa.Column("crd_pin", sa.Text(), nullable=True))
    op.create_check_constraint(
        op.f("ck_claims_crd_status"), "claims", "crd_status IN ('failed', 'ready', 'starting', 'waiting')"
    )
    op.create_index(
        "uq_claims_open_key",
        "claims",
        ["key_hash"],
        unique=True,
        postgresql_where=sa.text("status IN ('active', 'preparing', 'waiting')"),
    )


def _admission() -> None:
    op.create_table(
        "join_codes",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("pool_id", sa.BigInteger(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("starts_at", WHEN, nullable=True),
        sa.Column("ends_at", WHEN, nullable=True),
        sa.Column("max_uses", sa.Integer(), nullable=True),
        sa.Column("uses", sa.Integer(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", WHEN, nullable=False),
        sa.Column("revoked_at", WHEN, nullable=True),
        sa.CheckConstraint("max_uses >= 1", name=op.f("ck_join_codes_max_uses")),
        sa.ForeignKeyConstraint(["pool_id"], ["pools.id"], name=op.f("fk_join_codes_pool_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_join_codes")),
        sa.UniqueConstraint("code", name=op.f("uq_join_codes_code")),
    )
    op.create_index(
        "uq_join_codes_pool_id", "join_codes", ["pool_id"], unique=True, postgresql_where=sa.text("revoked_at IS NULL")
    )
    op.create_table(
        "roster_entries",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("pool_id", sa.BigInteger(), nullable=False),
        sa.Column("email", sa.String(length=255), nullable=False),
        sa.Column("label", sa.Text(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", WHEN, nullable=False),
        sa.Column("removed_at", WHEN, nullable=True),
        sa.ForeignKeyConstraint(["pool_id"], ["pools.id"], name=op.f("fk_roster_entries_pool_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_roster_entries")),
    )
    op.create_index(
        "uq_roster_entries_email",
        "roster_entries",
        ["pool_id", sa.literal_column("lower(email)")],
        unique=True,
        postgresql_where=sa.text("removed_at IS NULL"),
    )


def _seats() -> None:
    op.create_table(
        "seat_browsers",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("claim_id", sa.BigInteger(), nullable=False),
        sa.Column("owner_hash", sa.LargeBinary(), nullable=False),
        sa.Column("address", sa.Text(), nullable=True),
        sa.Column("user_agent", sa.Text(), nullable=True),
        sa.Column("opened_at", WHEN, nullable=False),
        sa.Column("last_seen_at", WHEN, nullable=False),
        sa.Column("ended_at", WHEN, nullable=True),
        sa.ForeignKeyConstraint(["claim_id"], ["claims.id"], name=op.f("fk_seat_browsers_claim_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_seat_browsers")),
    )
    op.create_index("ix_seat_browsers_owner_hash", "seat_browsers", ["owner_hash"], unique=False)
    op.create_index(
        "uq_seat_browsers_open",
        "seat_browsers",
        ["claim_id", "owner_hash"],
        unique=True,
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    # Every seat that is held by a browser today stays open in it.
    op.execute(
        "INSERT INTO seat_browsers (claim_id, owner_hash, opened_at, last_seen_at) "
        "SELECT id, owner_hash, created_at, created_at FROM claims WHERE owner_hash IS NOT NULL"
    )
    op.create_table(
        "terminals",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("claim_id", sa.BigInteger(), nullable=False),
        sa.Column("vm_id", sa.Integer(), nullable=False),
        sa.Column("opened_at", WHEN, nullable=False),
        sa.Column("ended_at", WHEN, nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["claim_id"], ["claims.id"], name=op.f("fk_terminals_claim_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["vm_id"], ["vms.id"], name=op.f("fk_terminals_vm_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_terminals")),
    )
    op.create_index("ix_terminals_claim_id_id", "terminals", ["claim_id", "id"], unique=False)
    op.create_table(
        "terminal_watches",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("claim_id", sa.BigInteger(), nullable=False),
        sa.Column("admin", sa.Text(), nullable=False),
        sa.Column("may_type", sa.Boolean(), nullable=False),
        sa.Column("requested_at", WHEN, nullable=False),
        sa.Column("agreed_at", WHEN, nullable=True),
        sa.Column("ended_at", WHEN, nullable=True),
        sa.ForeignKeyConstraint(
            ["claim_id"], ["claims.id"], name=op.f("fk_terminal_watches_claim_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_terminal_watches")),
    )
    op.create_index("ix_terminal_watches_claim_id_id", "terminal_watches", ["claim_id", "id"], unique=False)


def _people() -> None:
    op.alter_column("users", "password_hash", nullable=True)
    op.add_column("users", sa.Column("totp_secret", sa.Text(), nullable=True))
    op.add_column("users", sa.Column("totp_confirmed_at", WHEN, nullable=True))
    op.add_column("users", sa.Column("totp_last_step", sa.BigInteger(), nullable=True))
    op.add_column("users", sa.Column("oidc_subject", sa.Text(), nullable=True))
    op.create_unique_constraint(op.f("uq_users_oidc_subject"), "users", ["oidc_subject"])
    op.add_column("admin_sessions", sa.Column("last_seen_at", WHEN, nullable=True))
    op.add_column("api_tokens", sa.Column("created_by", sa.Text(), nullable=True))
    op.add_column("api_tokens", sa.Column("last_used_at", WHEN, nullable=True))
    op.create_table(
        "invites",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=True),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", WHEN, nullable=False),
        sa.Column("expires_at", WHEN, nullable=False),
        sa.Column("used_at", WHEN, nullable=True),
        sa.Column("revoked_at", WHEN, nullable=True),
        sa.CheckConstraint("role IN ('admin', 'operator', 'viewer')", name=op.f("ck_invites_role")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_invites_user_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_invites")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_invites_token_hash")),
    )


def _commands() -> None:
    op.drop_constraint(op.f("ck_commands_kind"), "commands")
    op.create_check_constraint(
        op.f("ck_commands_kind"),
        "commands",
        "kind IN ('end_session', 'open_terminal', 'prepare_session', 'reboot', 'start_crd', 'stop')",
    )
