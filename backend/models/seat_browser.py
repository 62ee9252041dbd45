"""Browsers: where a seat is open."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, DateTime, ForeignKey, Index, LargeBinary, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from backend.models.base import Base, Id, When


class SeatBrowser(Base):
    """One browser in which a seat is open, until it is signed out. Only SHA-256 of its cookie is kept."""

    __tablename__ = "seat_browsers"
    __table_args__ = (
        Index("ix_seat_browsers_owner_hash", "owner_hash"),
        Index(
            "uq_seat_browsers_open", "claim_id", "owner_hash", unique=True, postgresql_where=text("ended_at IS NULL")
        ),
    )

    id: Mapped[Id]
    claim_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("claims.id", ondelete="CASCADE"))
    owner_hash: Mapped[bytes] = mapped_column(LargeBinary)
    address: Mapped[str | None] = mapped_column(Text)
    user_agent: Mapped[str | None] = mapped_column(Text)
    opened_at: Mapped[When]
    last_seen_at: Mapped[When]
    ended_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
