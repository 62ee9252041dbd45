"""Claims: a researcher's hold on a VM, or a place in line for one."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, DateTime, ForeignKey, Index, Integer, LargeBinary, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from backend.models.base import Base, Id, When, Words, one_of, quoted
from backend.states import HOLDING_CLAIM, OPEN_CLAIM, ClaimStatus, CrdStatus

_OPEN = text(f"status IN ({quoted(OPEN_CLAIM)})")
_HOLDING = text(f"status IN ({quoted(HOLDING_CLAIM)})")


class Claim(Base):
    """A claim. The order of ``id`` is the order of the line.

    ``person`` is who claimed where that was proven (``roster:<entry>``, ``oidc:<subject>``); the e-mail proves nothing.
    ``owner_hash`` is SHA-256 of the cookie of the browser that claimed; where else the seat is open stands in
    ``seat_browsers``. ``key_hash`` is SHA-256 of the seat key. ``crd_pin`` is sealed.
    """

    __tablename__ = "claims"
    __table_args__ = (
        one_of("status", ClaimStatus),
        one_of("crd_status", CrdStatus),
        Index("uq_claims_open_vm", "vm_id", unique=True, postgresql_where=_HOLDING),
        Index("uq_claims_open_email", "pool_id", text("lower(email)"), unique=True, postgresql_where=_OPEN),
        Index("uq_claims_open_owner", "pool_id", "owner_hash", unique=True, postgresql_where=_OPEN),
        Index("uq_claims_open_person", "pool_id", "person", unique=True, postgresql_where=_OPEN),
        Index("uq_claims_idempotency", "pool_id", "idempotency_hash", unique=True, postgresql_where=_OPEN),
        Index("ix_claims_line", "pool_id", "id", postgresql_where=text("status = 'waiting'")),
        Index("ix_claims_owner_hash", "owner_hash"),
        Index("uq_claims_open_key", "key_hash", unique=True, postgresql_where=_OPEN),
    )

    id: Mapped[Id]
    pool_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("pools.id"))
    vm_id: Mapped[int | None] = mapped_column(Integer, ForeignKey("vms.id"))
    email: Mapped[str] = mapped_column(String(255))
    person: Mapped[str | None] = mapped_column(Text)
    owner_hash: Mapped[bytes | None] = mapped_column(LargeBinary)
    idempotency_hash: Mapped[bytes | None] = mapped_column(LargeBinary)
    status: Mapped[Words]
    status_changed_at: Mapped[When]
    reason: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[When]
    ended_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    key_hash: Mapped[bytes | None] = mapped_column(LargeBinary)
    ends_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    warned_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    # When the class of a schedule ends this seat.
    stops_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    warned_again_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    last_active_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    crd_status: Mapped[str | None] = mapped_column(Text)
    crd_detail: Mapped[str | None] = mapped_column(Text)
    crd_link: Mapped[str | None] = mapped_column(Text)
    crd_pin: Mapped[str | None] = mapped_column(Text)


class SeatLink(Base):
    """A link that opens a seat in a browser once; only its SHA-256 is kept."""

    __tablename__ = "seat_links"

    id: Mapped[Id]
    claim_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("claims.id", ondelete="CASCADE"), index=True)
    token_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    expires_at: Mapped[When]
    used_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
