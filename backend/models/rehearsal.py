"""Rehearsals of classes: what was expected, how each machine did, how the arrivals went, and the verdict."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, DateTime, ForeignKey, Index, Integer, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from backend.models.base import Base, Id, Json, When, Words, one_of
from backend.states import RehearsalStatus, RehearsalStep, Verdict


class Rehearsal(Base):
    """A rehearsal. ``over_s``: how long people go on arriving, from ``starts_at`` on, in seconds.

    ``need``, ``arrivals`` and ``reasons`` hold what ``backend.services.rehearsal_need``, ``…_arrivals`` and
    ``…_verdict`` write there.
    """

    __tablename__ = "rehearsals"
    __table_args__ = (
        one_of("status", RehearsalStatus),
        one_of("verdict", Verdict),
        CheckConstraint("people BETWEEN 1 AND 2000", name="people"),
        CheckConstraint("over_s BETWEEN 0 AND 86400", name="over_s"),
        # One of a pool at a time.
        Index("uq_rehearsals_running", "pool_id", unique=True, postgresql_where=text("status = 'running'")),
        Index("ix_rehearsals_pool_id_id", "pool_id", "id"),
    )

    id: Mapped[Id]
    pool_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("pools.id", ondelete="CASCADE"))
    status: Mapped[Words]
    people: Mapped[int]
    over_s: Mapped[int]
    starts_at: Mapped[When]
    zone: Mapped[Words]
    created_by: Mapped[Words]
    created_at: Mapped[When]
    deadline_at: Mapped[When]
    ended_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    reason: Mapped[str | None] = mapped_column(Text)
    verdict: Mapped[str | None] = mapped_column(Text)
    need: Mapped[Json]
    arrivals: Mapped[Json] = mapped_column(default=dict)
    reasons: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, default=list)


class RehearsalMachine(Base):
    """One machine of a rehearsal, over at ``ended_at``. ``problem``: what is wrong with it; ``remedy``: what to do.

    ``connection`` says in words what was opened, ``said`` the last lines of the check command.
    """

    __tablename__ = "rehearsal_machines"
    __table_args__ = (
        one_of("step", RehearsalStep),
        Index("uq_rehearsal_machines_vm_id", "rehearsal_id", "vm_id", unique=True),
        Index("ix_rehearsal_machines_vm_id", "vm_id"),
        Index("ix_rehearsal_machines_claim_id", "claim_id"),
    )

    id: Mapped[Id]
    rehearsal_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("rehearsals.id", ondelete="CASCADE"))
    vm_id: Mapped[int] = mapped_column(Integer, ForeignKey("vms.id", ondelete="CASCADE"))
    step: Mapped[Words]
    step_at: Mapped[When]
    claim_id: Mapped[int | None] = mapped_column(BigInteger, ForeignKey("claims.id", ondelete="SET NULL"))
    # What its robot waits for right now.
    terminal_id: Mapped[int | None] = mapped_column(BigInteger)
    command_id: Mapped[int | None] = mapped_column(BigInteger)
    connection: Mapped[str | None] = mapped_column(Text)
    said: Mapped[str | None] = mapped_column(Text)
    problem: Mapped[str | None] = mapped_column(Text)
    remedy: Mapped[str | None] = mapped_column(Text)
    ended_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
