"""Operations: one Terraform run each, with its log and its progress per VM."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, DateTime, Float, ForeignKey, Index, Integer, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from backend.models.base import Base, Id, When, Words, one_of, quoted
from backend.states import OPEN_OPERATION, OperationKind, OperationStatus, ProgressState


class Operation(Base):
    """An operation. While it runs, a worker renews ``lease_expires_at``; an expired lease means the worker died."""

    __tablename__ = "operations"
    __table_args__ = (
        one_of("status", OperationStatus),
        one_of("kind", OperationKind),
        Index("ix_operations_open", "id", postgresql_where=text(f"status IN ({quoted(OPEN_OPERATION)})")),
    )

    id: Mapped[Id]
    pool_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("pools.id"))
    kind: Mapped[Words]
    status: Mapped[Words]
    reason: Mapped[str | None] = mapped_column(Text)
    requested_by: Mapped[Words]
    created_at: Mapped[When]
    started_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    cancel_requested_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    attempt: Mapped[int] = mapped_column(default=0)
    job_id: Mapped[int | None] = mapped_column(BigInteger)
    lease_owner: Mapped[str | None] = mapped_column(Text)
    lease_expires_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class OperationVm(Base):
    """How far one operation is with one VM."""

    __tablename__ = "operation_vms"
    __table_args__ = (one_of("state", ProgressState),)

    operation_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("operations.id", ondelete="CASCADE"), primary_key=True
    )
    vm_id: Mapped[int] = mapped_column(Integer, ForeignKey("vms.id", ondelete="CASCADE"), primary_key=True, index=True)
    state: Mapped[Words] = mapped_column(default=ProgressState.PENDING)
    detail: Mapped[str | None] = mapped_column(Text)
    elapsed_s: Mapped[float] = mapped_column(Float, default=0.0)


class OperationLog(Base):
    """One line of an operation's log."""

    __tablename__ = "operation_logs"
    __table_args__ = (Index("ix_operation_logs_operation_id_id", "operation_id", "id"),)

    id: Mapped[Id]
    operation_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("operations.id", ondelete="CASCADE"))
    at: Mapped[When]
    level: Mapped[Words]
    message: Mapped[Words]
