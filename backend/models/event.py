"""Events: the append-only history of who did what, when, from where."""

from __future__ import annotations

from sqlalchemy import BigInteger, Index, Text
from sqlalchemy.orm import Mapped, mapped_column

from backend.models.base import Base, Id, Json, When, Words


class Event(Base):
    """One line of history. Holds ids without foreign keys: history outlives what it speaks of."""

    __tablename__ = "events"
    __table_args__ = (
        Index("ix_events_vm_id_id", "vm_id", "id"),
        Index("ix_events_operation_id_id", "operation_id", "id"),
        Index("ix_events_at", "at"),
    )

    id: Mapped[Id]
    at: Mapped[When]
    actor: Mapped[Words]
    address: Mapped[str | None] = mapped_column(Text)
    kind: Mapped[Words]
    message: Mapped[Words]
    pool_id: Mapped[int | None] = mapped_column(BigInteger)
    vm_id: Mapped[int | None] = mapped_column(BigInteger)
    claim_id: Mapped[int | None] = mapped_column(BigInteger)
    operation_id: Mapped[int | None] = mapped_column(BigInteger)
    data: Mapped[Json] = mapped_column(default=dict)
