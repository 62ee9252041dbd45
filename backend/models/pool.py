"""Pools: VMs of one specification."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import CheckConstraint, DateTime, Numeric, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from backend.models.base import Base, Id, When, Words, one_of
from backend.states import Access, PoolStatus


class Pool(Base):
    """A pool. ``next_number`` only grows, so that a hostname is never given twice.

    ``terminal``, ``crd`` and ``url_template`` are the connections that it offers. ``is_rehearsal``: its machines and
    people are simulated, and it goes with the rehearsal that made it.
    """

    __tablename__ = "pools"
    __table_args__ = (
        one_of("status", PoolStatus),
        one_of("access", Access),
        CheckConstraint("max BETWEEN 1 AND 1000", name="max"),
        CheckConstraint("available_min BETWEEN 0 AND max", name="available_min"),
        CheckConstraint("price_per_hour >= 0", name="price_per_hour"),
    )

    id: Mapped[Id]
    name: Mapped[Words] = mapped_column(unique=True)
    provider: Mapped[Words]
    status: Mapped[Words] = mapped_column(default=PoolStatus.OPEN)
    max: Mapped[int]
    available_min: Mapped[int] = mapped_column(default=0)
    price_per_hour: Mapped[Decimal] = mapped_column(Numeric(10, 4), default=Decimal(0))
    boot_deadline_s: Mapped[int] = mapped_column(default=900)
    unreachable_grace_s: Mapped[int] = mapped_column(default=600)
    startup_script: Mapped[str | None]
    repository: Mapped[str | None]
    cleaning_script: Mapped[str | None]
    cleaning_deadline_s: Mapped[int] = mapped_column(default=300, server_default="300")
    check_command: Mapped[str | None]
    access: Mapped[Words] = mapped_column(default=Access.OPEN)
    oidc_group: Mapped[str | None] = mapped_column(Text)
    terminal: Mapped[bool] = mapped_column(default=False)
    crd: Mapped[bool] = mapped_column(default=False)
    url_template: Mapped[str | None] = mapped_column(Text)
    claim_duration_s: Mapped[int | None]
    idle_limit_s: Mapped[int | None]
    # The ``AwsSpec`` of a pool on AWS.
    aws: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
    # Its own ``HealthLimits``, where they are not the server's.
    health: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict, server_default="{}")
    # Its own ``HealingLimits``, likewise.
    healing: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict, server_default="{}")
    is_rehearsal: Mapped[bool] = mapped_column(default=False, server_default="false")
    next_number: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[When]
    updated_at: Mapped[When]
    closed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
