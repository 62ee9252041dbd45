"""Admins: who they are, where they are signed in, and the tokens that act for them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, DateTime, ForeignKey, Index, LargeBinary, Text
from sqlalchemy.orm import Mapped, mapped_column

from backend.models.base import Base, Id, When, Words, one_of
from backend.states import Role


class User(Base):
    """An admin. ``password_hash`` is argon2id in its own PHC string format; None where only OIDC signs in.

    ``totp_secret`` is sealed; it counts once confirmed, and ``totp_last_step`` keeps a code from working twice.
    """

    __tablename__ = "users"
    __table_args__ = (one_of("role", Role),)

    id: Mapped[Id]
    name: Mapped[Words] = mapped_column(unique=True)
    password_hash: Mapped[str | None] = mapped_column(Text)
    role: Mapped[Words]
    created_at: Mapped[When]
    disabled_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    totp_secret: Mapped[str | None] = mapped_column(Text)
    totp_confirmed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    totp_last_step: Mapped[int | None] = mapped_column(BigInteger)
    oidc_subject: Mapped[str | None] = mapped_column(Text, unique=True)


class Invite(Base):
    """A link that makes an admin (or sets the password anew of ``user_id``), once; only its SHA-256 is kept."""

    __tablename__ = "invites"
    __table_args__ = (one_of("role", Role),)

    id: Mapped[Id]
    name: Mapped[Words]
    role: Mapped[Words]
    user_id: Mapped[int | None] = mapped_column(BigInteger, ForeignKey("users.id", ondelete="CASCADE"))
    token_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    created_by: Mapped[Words]
    created_at: Mapped[When]
    expires_at: Mapped[When]
    used_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    revoked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class AdminSession(Base):
    """One signed-in browser of an admin; the cookie holds 256 random bits, this row their SHA-256."""

    __tablename__ = "admin_sessions"

    id: Mapped[Id]
    user_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("users.id", ondelete="CASCADE"), index=True)
    token_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    created_at: Mapped[When]
    expires_at: Mapped[When]
    revoked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    address: Mapped[str | None] = mapped_column(Text)
    user_agent: Mapped[str | None] = mapped_column(Text)
    last_seen_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class ApiToken(Base):
    """A token for scripts; only its SHA-256 is kept."""

    __tablename__ = "api_tokens"
    __table_args__ = (one_of("role", Role),)

    id: Mapped[Id]
    name: Mapped[Words] = mapped_column(unique=True)
    token_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    role: Mapped[Words]
    created_at: Mapped[When]
    expires_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    revoked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    created_by: Mapped[str | None] = mapped_column(Text)
    last_used_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class LoginFailure(Base):
    """One failed guess; only failures are counted. ``key`` names what was guessed, or the address it came from."""

    __tablename__ = "login_failures"
    __table_args__ = (Index("ix_login_failures_key_at", "key", "at"),)

    id: Mapped[Id]
    key: Mapped[Words]
    at: Mapped[When]
