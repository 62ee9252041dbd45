"""Repairs: attempts to mend machines, and the breaker that stops them in a pool where they fail alike."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, DateTime, ForeignKey, Index, Integer, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from backend.models.base import Base, Id, When, Words, one_of
from backend.states import RepairFault, RepairOutcome, Rung


class Repair(Base):
    """One attempt on one machine. ``replacement_id``: the VM that stands in its place, on the rung ``replace``.

    ``cause``: why it was mended; ``is_last``: no rung was above it; ``reason``: why it ended as it did.
    """

    __tablename__ = "repairs"
    __table_args__ = (
        one_of("rung", Rung),
        one_of("outcome", RepairOutcome),
        one_of("fault", RepairFault),
        # One attempt at a time.
        Index("uq_repairs_open", "vm_id", unique=True, postgresql_where=text("ended_at IS NULL")),
        Index("ix_repairs_pool_id_began_at", "pool_id", "began_at"),
        Index("ix_repairs_vm_id", "vm_id"),
        Index("ix_repairs_replacement_id", "replacement_id"),
    )

    id: Mapped[Id]
    pool_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("pools.id", ondelete="CASCADE"))
    vm_id: Mapped[int] = mapped_column(Integer, ForeignKey("vms.id", ondelete="CASCADE"))
    rung: Mapped[Words]
    is_last: Mapped[bool]
    cause: Mapped[str | None] = mapped_column(Text)
    began_at: Mapped[When]
    deadline_at: Mapped[When]
    replacement_id: Mapped[int | None] = mapped_column(Integer, ForeignKey("vms.id", ondelete="SET NULL"))
    ended_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    outcome: Mapped[str | None] = mapped_column(Text)
    fault: Mapped[str | None] = mapped_column(Text)
    reason: Mapped[str | None] = mapped_column(Text)


class HealingBreaker(Base):
    """The breaker of a pool. While open, one machine at a time is tried from ``trial_at`` on; ``trials`` failed."""

    __tablename__ = "healing_breakers"

    pool_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("pools.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    opened_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    reason: Mapped[str | None] = mapped_column(Text)
    trial_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    trials: Mapped[int] = mapped_column(default=0)
    closed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
