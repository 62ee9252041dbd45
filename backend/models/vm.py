"""VMs: the desired set and the truth about each machine."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, DateTime, ForeignKey, Index, Integer, Numeric, String, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from backend.models.base import Base, When, Words, one_of
from backend.states import Health, Origin, VmStatus


class Vm(Base):
    """A VM. ``email`` and ``crd_command`` repeat what its open claim says, for whoever reads this table by SQL."""

    __tablename__ = "vms"
    __table_args__ = (
        one_of("status", VmStatus),
        one_of("origin", Origin),
        one_of("health", Health),
        CheckConstraint("crd_command = 'set'", name="crd_command"),
        # A name may come back only after its machine is gone for good.
        Index("uq_vms_hostname", "hostname", unique=True, postgresql_where=text("status <> 'destroyed'")),
        # The claim's own index: the offer of a pool in the very order in which it is taken.
        Index(
            "ix_vms_offer",
            "pool_id",
            text("health DESC"),
            "status_changed_at",
            "id",
            postgresql_where=text("status = 'available'"),
        ),
        Index("ix_vms_pool_id_status", "pool_id", "status"),
    )

    id: Mapped[int] = mapped_column(Integer, autoincrement=True, primary_key=True)
    hostname: Mapped[str] = mapped_column(String(255))
    email: Mapped[str | None] = mapped_column(String(255))
    status: Mapped[str] = mapped_column(String(50), default=VmStatus.PROVISIONING)
    crd_command: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[When]
    updated_at: Mapped[When]

    pool_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("pools.id"))
    origin: Mapped[Words] = mapped_column(default=Origin.TERRAFORM)
    status_changed_at: Mapped[When]
    reason: Mapped[str | None] = mapped_column(Text)
    health: Mapped[str | None] = mapped_column(Text)
    health_reasons: Mapped[list[str]] = mapped_column(JSONB, default=list)
    # The open ones, as ``backend.services.conditions`` writes them; what it watches stands with the heartbeat.
    conditions: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, default=list, server_default="[]")
    unreachable_since: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    boot_id: Mapped[str | None] = mapped_column(Text)
    agent_version: Mapped[str | None] = mapped_column(Text)
    # Once set, no launch may change or replace this machine.
    first_heartbeat_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    destroyed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    price_per_hour: Mapped[Decimal] = mapped_column(Numeric(10, 4), default=Decimal(0))
    facts: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
