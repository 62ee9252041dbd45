"""Ends of terminals and watches, as steps within somebody else's transaction: of a claim, a boot, a command."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql import ColumnElement

from backend.models import Claim, Terminal, TerminalWatch
from backend.services.actor import Actor
from backend.services.moves import record_event

SEAT_ENDED = "the seat has ended"


async def end_terminals_of_claim(session: AsyncSession, claim: Claim, *, actor: Actor, at: datetime) -> None:
    """Ends every terminal of a claim that is over, and lets nobody watch it any more."""
    await end_terminals(session, Terminal.claim_id == claim.id, actor=actor, at=at, reason=SEAT_ENDED)
    watches = select(TerminalWatch).where(TerminalWatch.claim_id == claim.id, TerminalWatch.ended_at.is_(None))
    for watch in await session.scalars(watches.with_for_update()):
        watch.ended_at = at


async def end_terminals_of_vm(session: AsyncSession, vm_id: int, *, actor: Actor, at: datetime, reason: str) -> None:
    """Ends every terminal of a VM: the process that held them is gone."""
    await end_terminals(session, Terminal.vm_id == vm_id, actor=actor, at=at, reason=reason)


async def end_terminals(
    session: AsyncSession, which: ColumnElement[bool], *, actor: Actor, at: datetime, reason: str
) -> int:
    """Ends those of these terminals that are open, each with its event. Returns how many there were."""
    query = (
        select(Terminal, Claim.pool_id)
        .join(Claim, Claim.id == Terminal.claim_id)
        .where(which, Terminal.ended_at.is_(None))
        .order_by(Terminal.id)
        .with_for_update(of=Terminal)
    )
    ended = (await session.execute(query)).all()
    for terminal, pool_id in ended:
        terminal.ended_at, terminal.reason = at, reason
        record_event(
            session,
            "terminal.ended",
            f"Terminal {terminal.id} has ended: {reason}",
            actor=actor,
            at=at,
            pool_id=pool_id,
            vm_id=terminal.vm_id,
            claim_id=terminal.claim_id,
        )
    return len(ended)
