"""Terminals: shells in a session, and who else may look at them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, DateTime, ForeignKey, Index, Integer, Text
from sqlalchemy.orm import Mapped, mapped_column

from backend.models.base import Base, Id, When, Words


class Terminal(Base):
    """One shell on a VM for one claim; its output lives with the agent, not here.

    ``connected_at``: when its agent first dialled in with it.
    """

    __tablename__ = "terminals"
    __table_args__ = (Index("ix_terminals_claim_id_id", "claim_id", "id"),)

    id: Mapped[Id]
    claim_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("claims.id", ondelete="CASCADE"))
    vm_id: Mapped[int] = mapped_column(Integer, ForeignKey("vms.id", ondelete="CASCADE"))
    opened_at: Mapped[When]
    connected_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    ended_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    reason: Mapped[str | None] = mapped_column(Text)


class TerminalWatch(Base):
    """An admin who asked to watch (or help in) the terminals of a claim; nothing is shown before its owner agrees."""

    __tablename__ = "terminal_watches"
    __table_args__ = (Index("ix_terminal_watches_claim_id_id", "claim_id", "id"),)

    id: Mapped[Id]
    claim_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("claims.id", ondelete="CASCADE"))
    admin: Mapped[Words]
    may_type: Mapped[bool]
    requested_at: Mapped[When]
    agreed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    ended_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
