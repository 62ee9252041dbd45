"""What agents report: the latest heartbeat of each VM, and samples for its charts."""

from __future__ import annotations

from typing import Any

from sqlalchemy import DateTime, Float, ForeignKey, Index, Integer
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


class HealthSample(Base):
    """One point of a VM's charts."""

    __tablename__ = "health_samples"
    __table_args__ = (Index("ix_health_samples_at", "at", postgresql_using="brin"),)

    vm_id: Mapped[int] = mapped_column(Integer, ForeignKey("vms.id", ondelete="CASCADE"), primary_key=True)
    at: Mapped[When] = mapped_column(DateTime(timezone=True), primary_key=True)
    cpu_pct: Mapped[float] = mapped_column(Float)
    memory_pct: Mapped[float] = mapped_column(Float)
    disk_free_pct: Mapped[float] = mapped_column(Float)
    gpu_pct: Mapped[float | None] = mapped_column(Float)
    gpu_memory_pct: Mapped[float | None] = mapped_column(Float)
    gpu_temperature_c: Mapped[float | None] = mapped_column(Float)
