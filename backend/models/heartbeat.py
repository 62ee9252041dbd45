"""What agents report: the latest heartbeat of each VM, samples for its charts and their averages."""

from __future__ import annotations

from typing import Any

from sqlalchemy import REAL, DateTime, Float, ForeignKey, Index, Integer
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from backend.models.base import Base, When, Words


class LatestHeartbeat(Base):
    """The last heartbeat of a VM. Apart from ``vms`` so that a plain heartbeat fires no notice."""

    __tablename__ = "latest_heartbeats"
    # Rewritten every 20 s a row: room on the page keeps the update in place.
    __table_args__ = ({"postgresql_with": {"fillfactor": "50"}},)

    vm_id: Mapped[int] = mapped_column(Integer, ForeignKey("vms.id", ondelete="CASCADE"), primary_key=True)
    at: Mapped[When]
    boot_id: Mapped[Words]
    phase: Mapped[Words]
    health: Mapped[Words]
    reasons: Mapped[list[str]] = mapped_column(JSONB)
    gpus: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)
    cpu_pct: Mapped[float] = mapped_column(Float)
    memory_pct: Mapped[float] = mapped_column(Float)
    disk_free_pct: Mapped[float] = mapped_column(Float)
    # What may become a condition or is one, and how many GPUs there were: rewritten anyway, and no notice is sent.
    watched: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict, server_default="{}")


class _Point:
    """What a VM's charts show at one time."""

    vm_id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    at: Mapped[When] = mapped_column(DateTime(timezone=True), primary_key=True)
    cpu_pct: Mapped[float] = mapped_column(REAL)
    memory_pct: Mapped[float] = mapped_column(REAL)
    disk_free_pct: Mapped[float] = mapped_column(REAL)
    gpu_pct: Mapped[float | None] = mapped_column(REAL)
    gpu_memory_pct: Mapped[float | None] = mapped_column(REAL)
    gpu_temperature_c: Mapped[float | None] = mapped_column(REAL)


class HealthSample(_Point, Base):
    """One point of a VM's charts: what one heartbeat said. Small: there are millions."""

    __tablename__ = "health_samples"
    __table_args__ = (Index("ix_health_samples_at", "at", postgresql_using="brin"),)


class HealthAverage(_Point, Base):
    """The mean of a VM's samples over ten minutes, from ``at`` on."""

    __tablename__ = "health_averages"
    __table_args__ = (Index("ix_health_averages_at", "at"),)
