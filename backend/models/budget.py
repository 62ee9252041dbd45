"""Budgets: what a pool may cost."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from sqlalchemy import BigInteger, CheckConstraint, DateTime, ForeignKey, Numeric
from sqlalchemy.orm import Mapped, mapped_column

from backend.models.base import Base, When


class Budget(Base):
    """What a pool may cost from ``counts_from`` on, in US dollars.

    ``warned_pct``: the highest share that was told of. ``fused_at``: since when nothing is launched; ``lifted_at``:
    an admin said to go on all the same.
    """

    __tablename__ = "budgets"
    __table_args__ = (CheckConstraint("dollars > 0", name="dollars"),)

    pool_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("pools.id", ondelete="CASCADE"), primary_key=True)
    dollars: Mapped[Decimal] = mapped_column(Numeric(12, 2))
    counts_from: Mapped[When]
    warned_pct: Mapped[int] = mapped_column(default=0)
    fused_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    lifted_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
