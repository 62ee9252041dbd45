"""Prices: what a machine of a kind costs at a provider, and since when that is known."""

from __future__ import annotations

from decimal import Decimal

from sqlalchemy import CheckConstraint, Numeric, Text
from sqlalchemy.orm import Mapped, mapped_column

from backend.models.base import Base, When, Words


class Price(Base):
    """US dollars an hour. ``source`` and ``as_of`` are told to people; ``region`` is where it was read."""

    __tablename__ = "prices"
    __table_args__ = (CheckConstraint("price_per_hour >= 0", name="price_per_hour"),)

    provider: Mapped[str] = mapped_column(Text, primary_key=True)
    kind: Mapped[str] = mapped_column(Text, primary_key=True)
    region: Mapped[Words]
    price_per_hour: Mapped[Decimal] = mapped_column(Numeric(10, 4))
    source: Mapped[Words]
    as_of: Mapped[When]
