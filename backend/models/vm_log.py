"""Lines that agents ship: boot, workload, startup script, the agent itself."""

from __future__ import annotations

from sqlalchemy import Boolean, ForeignKey, Index, Integer, text
from sqlalchemy.orm import Mapped, mapped_column

from backend.models.base import Base, Big, Id, When, Words


class VmLog(Base):
    """One batch of lines of one source, as it came: a JSON list of [milliseconds since 1970, line].

    Lines are numbered within their ``stream``, which an agent begins anew when it has lost its count. What is
    ``is_head`` stays; of the others the oldest go first.
    """

    __tablename__ = "vm_logs"
    __table_args__ = (Index("ix_vm_logs_vm_id_id", "vm_id", "id"),)

    id: Mapped[Id]
    vm_id: Mapped[int] = mapped_column(Integer, ForeignKey("vms.id", ondelete="CASCADE"))
    at: Mapped[When]
    source: Mapped[Words]
    stream: Mapped[Words]
    first_seq: Mapped[Big]
    last_seq: Mapped[Big]
    is_head: Mapped[bool] = mapped_column(Boolean)
    bytes: Mapped[int] = mapped_column(Integer)
    lines: Mapped[Words]


class VmLogSource(Base):
    """How far one source of a VM's log has come. ``carry``: what the next line is read together with."""

    __tablename__ = "vm_log_sources"

    vm_id: Mapped[int] = mapped_column(Integer, ForeignKey("vms.id", ondelete="CASCADE"), primary_key=True)
    source: Mapped[Words] = mapped_column(primary_key=True)
    stream: Mapped[Words] = mapped_column(server_default=text("''"))
    last_seq: Mapped[Big] = mapped_column(server_default=text("0"))
    head_bytes: Mapped[Big] = mapped_column(server_default=text("0"))
    tail_bytes: Mapped[Big] = mapped_column(server_default=text("0"))
    carry: Mapped[Words] = mapped_column(server_default=text("''"))
