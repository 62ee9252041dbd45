"""Enrolments: how an agent proves that it may speak for a VM."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, DateTime, ForeignKey, Integer, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from backend.models.base import Base, Id, When, Words


class Enrolment(Base):
    """One single-use enrolment token and the agent token it turned into. Only SHA-256 hashes are kept.

    ``confirmed_at`` is set by the first heartbeat with the agent token; until then the same enrolment token,
    hostname and boot may ask again, and the former agent token dies.
    """

    __tablename__ = "enrolments"

    id: Mapped[Id]
    pool_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("pools.id"))
    vm_id: Mapped[int | None] = mapped_column(Integer, ForeignKey("vms.id", ondelete="CASCADE"), index=True)
    token_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    expires_at: Mapped[When]
    created_by: Mapped[Words]
    created_at: Mapped[When]
    used_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    used_boot_id: Mapped[str | None]
    agent_token_hash: Mapped[bytes | None] = mapped_column(LargeBinary, unique=True)
    confirmed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    revoked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
