"""Commands: work for one agent, stored until acknowledged."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, DateTime, ForeignKey, Index, Integer, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from backend.models.base import Base, Id, Json, When, Words, one_of, quoted
from backend.states import OPEN_COMMAND, CommandKind, CommandStatus


class Command(Base):
    """A command. Delivered at least once: it is sent again until a result is stored."""

    __tablename__ = "commands"
    __table_args__ = (
        one_of("status", CommandStatus),
        one_of("kind", CommandKind),
        Index("ix_commands_open", "vm_id", "id", postgresql_where=text(f"status IN ({quoted(OPEN_COMMAND)})")),
        Index("ix_commands_vm_id_kind_id", "vm_id", "kind", "id"),
    )

    id: Mapped[Id]
    vm_id: Mapped[int] = mapped_column(Integer, ForeignKey("vms.id", ondelete="CASCADE"))
    claim_id: Mapped[int | None] = mapped_column(BigInteger, ForeignKey("claims.id"))
    kind: Mapped[Words]
    payload: Mapped[Json]
    status: Mapped[Words]
    created_at: Mapped[When]
    deadline_at: Mapped[When]
    delivered_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    detail: Mapped[str | None] = mapped_column(Text)
    data: Mapped[Json] = mapped_column(default=dict)
