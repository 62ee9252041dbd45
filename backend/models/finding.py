"""Findings: where the database, Terraform's state and the cloud disagree right now."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from backend.models.base import Base, Id, When, Words, one_of
from backend.states import FindingKind


class Finding(Base):
    """One disagreement. It goes when it is no more. ``subject``: the hostname, the machine's id or the pool's name."""

    __tablename__ = "findings"
    __table_args__ = (
        one_of("kind", FindingKind),
        Index("uq_findings_kind_subject", "provider", "kind", "subject", unique=True),
    )

    id: Mapped[Id]
    provider: Mapped[Words]
    pool_id: Mapped[int | None] = mapped_column(BigInteger, ForeignKey("pools.id", ondelete="CASCADE"), index=True)
    kind: Mapped[Words]
    subject: Mapped[Words]
    sentence: Mapped[Words]
    facts: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
    found_at: Mapped[When]
