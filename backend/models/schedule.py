"""Schedules of pools, and each class that came of them."""

from __future__ import annotations

from datetime import date, datetime, time

from sqlalchemy import BigInteger, CheckConstraint, Date, DateTime, ForeignKey, Index, Integer, Text, Time, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from backend.models.base import Base, Id, When, Words, one_of
from backend.states import RunStatus


class Schedule(Base):
    """A class that recurs: its pool has ``count`` machines from ``starts`` to ``stops`` by the clocks of ``zone``.

    ``weekdays``: 0 is Monday. ``counts_from``: what was due before it is none of its business.
    """

    __tablename__ = "schedules"
    __table_args__ = (
        CheckConstraint("count BETWEEN 1 AND 1000", name="count"),
        CheckConstraint("catch_up_s BETWEEN 0 AND 86400", name="catch_up_s"),
    )

    id: Mapped[Id]
    pool_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("pools.id", ondelete="CASCADE"))
    name: Mapped[Words]
    zone: Mapped[Words]
    weekdays: Mapped[list[int]] = mapped_column(ARRAY(Integer))
    starts: Mapped[time] = mapped_column(Time)
    stops: Mapped[time] = mapped_column(Time)
    first_on: Mapped[date] = mapped_column(Date)
    last_on: Mapped[date | None] = mapped_column(Date)
    skips: Mapped[list[date]] = mapped_column(ARRAY(Date))
    count: Mapped[int]
    catch_up_s: Mapped[int]
    created_by: Mapped[Words]
    created_at: Mapped[When]
    counts_from: Mapped[When]
    paused_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    removed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class ScheduleRun(Base):
    """One class of a schedule: planned one ahead, done once. ``note`` says what became of it."""

    __tablename__ = "schedule_runs"
    __table_args__ = (
        one_of("status", RunStatus),
        Index("uq_schedule_runs_starts_at", "schedule_id", "starts_at", unique=True),
        Index(
            "uq_schedule_runs_open",
            "schedule_id",
            unique=True,
            postgresql_where=text("status IN ('planned', 'running')"),
        ),
    )

    id: Mapped[Id]
    schedule_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("schedules.id", ondelete="CASCADE"))
    pool_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("pools.id", ondelete="CASCADE"))
    status: Mapped[Words]
    starts_at: Mapped[When]
    stops_at: Mapped[When]
    started_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    stopped_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    note: Mapped[str | None] = mapped_column(Text)
