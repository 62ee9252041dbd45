"""Admission: join codes and rosters, which say who may claim in a pool."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, DateTime, ForeignKey, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from backend.models.base import Base, Id, When, Words


class JoinCode(Base):
    """A code for a lecture hall's screen; kept as it is, since it must be shown again. One at a time for each pool."""

    __tablename__ = "join_codes"
    __table_args__ = (
        CheckConstraint("max_uses >= 1", name="max_uses"),
        Index("uq_join_codes_pool_id", "pool_id", unique=True, postgresql_where=text("revoked_at IS NULL")),
    )

    id: Mapped[Id]
    pool_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("pools.id", ondelete="CASCADE"))
    code: Mapped[Words] = mapped_column(unique=True)
    starts_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    ends_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    max_uses: Mapped[int | None]
    uses: Mapped[int] = mapped_column(default=0)
    created_by: Mapped[Words]
    created_at: Mapped[When]
    revoked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class RosterEntry(Base):
    """A person on a pool's roster. ``version`` grows when the personal link is made anew: the former one dies."""

    __tablename__ = "roster_entries"
    __table_args__ = (
        Index(
            "uq_roster_entries_email",
            "pool_id",
            text("lower(email)"),
            unique=True,
            postgresql_where=text("removed_at IS NULL"),
        ),
    )

    id: Mapped[Id]
    pool_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("pools.id", ondelete="CASCADE"))
    email: Mapped[str] = mapped_column(String(255))
    label: Mapped[str | None] = mapped_column(Text)
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[When]
    removed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
