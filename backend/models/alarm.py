"""Alarms: what somebody should look at, for as long as its cause is there, and the messages about it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, DateTime, ForeignKey, Index, Integer, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from backend.models.base import Base, Id, Json, When, Words, one_of
from backend.states import AlarmKind, Channel, DeliveryStatus, Severity


class Alarm(Base):
    """One alarm. ``source``: the rules that all processes share, or the one process that says it of itself.

    ``subject`` names it within its kind and source; ``last_seen_at`` is when its cause was last there, roughly.
    """

    __tablename__ = "alarms"
    __table_args__ = (
        one_of("kind", AlarmKind),
        one_of("severity", Severity),
        Index("uq_alarms_open", "source", "kind", "subject", unique=True, postgresql_where=text("resolved_at IS NULL")),
        Index("ix_alarms_resolved_at", "resolved_at"),
    )

    id: Mapped[Id]
    source: Mapped[Words]
    kind: Mapped[Words]
    subject: Mapped[Words]
    pool_id: Mapped[int | None] = mapped_column(BigInteger, ForeignKey("pools.id", ondelete="CASCADE"))
    operation_id: Mapped[int | None] = mapped_column(BigInteger)
    severity: Mapped[Words]
    sentence: Mapped[Words]
    remedy: Mapped[Words]
    opened_at: Mapped[When]
    last_seen_at: Mapped[When]
    acknowledged_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    acknowledged_by: Mapped[str | None] = mapped_column(Text)
    resolved_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class AlarmDelivery(Base):
    """A message about an alarm. Kept until the other side has taken it, so that no restart loses one.

    ``message`` is what was true when it was written; ``next_at`` is when it may be tried (again).
    """

    __tablename__ = "alarm_deliveries"
    __table_args__ = (
        one_of("channel", Channel),
        one_of("status", DeliveryStatus),
        Index(
            "ix_alarm_deliveries_due",
            "channel",
            "next_at",
            postgresql_where=text(f"status = '{DeliveryStatus.QUEUED}'"),
        ),
        Index("ix_alarm_deliveries_alarm_id", "alarm_id"),
    )

    id: Mapped[Id]
    alarm_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("alarms.id", ondelete="CASCADE"))
    channel: Mapped[Words]
    message: Mapped[Json]
    status: Mapped[Words]
    attempts: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[When]
    next_at: Mapped[When]
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    last_error: Mapped[str | None] = mapped_column(Text)
