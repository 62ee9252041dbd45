"""Lines that agents ship: boot, workload, startup script, the agent itself."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index, Integer
from sqlalchemy.orm import Mapped, mapped_column

from backend.models.base import Base, Id, When, Words


class VmLog(Base):
    """One shipped line."""

    __tablename__ = "vm_logs"
    __table_args__ = (Index("ix_vm_logs_vm_id_id", "vm_id", "id"),)

    id: Mapped[Id]
    vm_id: Mapped[int] = mapped_column(Integer, ForeignKey("vms.id", ondelete="CASCADE"))
    at: Mapped[When]
    source: Mapped[Words]
    line: Mapped[Words]
