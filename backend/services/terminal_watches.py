"""Watches: an admin looks into the terminals of a seat, or helps in them, once its owner has agreed; either ends it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.errors import Conflict, NotFound
from backend.models import Claim, Pool, TerminalWatch
from backend.services.actor import Actor
from backend.services.moves import record_event
from backend.services.seat_browsers import holds
from backend.services.sessions import lock_claim
from backend.states import ClaimStatus


@dataclass(frozen=True, slots=True)
class WatchView:
    """A watch that was asked for (``agreed_at`` is None), or is on."""

    id: int
    claim_id: int
    admin: str
    may_type: bool
    requested_at: datetime
    agreed_at: datetime | None


async def request_watch(db: Database, claim_id: int, admin: str, *, may_type: bool, actor: Actor) -> WatchView:
    """Asks the owner. Asking again for the same changes nothing; asking for something else needs a new answer.

    Raises:
        Conflict: the seat is not active, or its pool offers no terminal.
    """
    actor.must_operate()
    async with db.transaction() as session:
        claim = await lock_claim(session, claim_id)
        if claim is None or claim.status != ClaimStatus.ACTIVE:
            raise Conflict("The seat is not active.", code="seat_not_active")
        if not (await session.get_one(Pool, claim.pool_id)).terminal:
            raise Conflict("This pool offers no terminal.", code="no_terminal")
        watch = await _find_open(session, claim_id, admin)
        if watch is not None and watch.may_type == may_type:
            return _view_of(watch)
        if watch is None:
            watch = TerminalWatch(claim_id=claim_id, admin=admin, may_type=may_type, requested_at=db.now())
            session.add(watch)
        else:
            watch.may_type, watch.requested_at, watch.agreed_at = may_type, db.now(), None
        await session.flush()
        _tell(session, db, claim, "requested", f"{admin} asks {claim.email} to {_verb(watch)}", actor)
        return _view_of(watch)


async def agree_to_watch(
    db: Database, claim_id: int, watch_id: int, *, may_type: bool, owner_hash: bytes, actor: Actor
) -> None:
    """The owner agrees to what was asked when the page was drawn; something else asked meanwhile needs a new answer.

    Raises:
        NotFound: the seat has no such request (any more), or this browser no such seat.
    """
    async with db.transaction() as session:
        claim, watch = await _get_open(session, claim_id, watch_id)
        await _check_holds(session, claim_id, owner_hash)
        if watch.may_type != may_type:
            raise NotFound("Something else is asked for meanwhile.", code="unknown_watch")
        if watch.agreed_at is None:
            watch.agreed_at = db.now()
            _tell(session, db, claim, "agreed", f"{claim.email} lets {watch.admin} {_verb(watch)}", actor)


async def end_watch(
    db: Database, claim_id: int, watch_id: int, *, actor: Actor, owner_hash: bytes | None = None
) -> None:
    """Either side refuses, withdraws or ends. What has ended stays so. ``owner_hash``: the browser, if the owner does.

    Raises:
        NotFound: the seat never had such a watch, or this browser holds no such seat.
    """
    async with db.transaction() as session:
        if owner_hash is not None:
            await _check_holds(session, claim_id, owner_hash)
        watch = await session.get(TerminalWatch, watch_id, with_for_update=True)
        claim = await session.get(Claim, claim_id)
        if watch is None or claim is None or watch.claim_id != claim_id:
            raise NotFound("This seat has no such watch.", code="unknown_watch")
        if watch.ended_at is None:
            watch.ended_at = db.now()
            word = "ended" if watch.agreed_at else "refused"
            _tell(session, db, claim, word, f"{watch.admin} does not {_verb(watch)} with {claim.email}", actor)


async def list_watches(db: Database, claim_id: int) -> list[WatchView]:
    """What was asked for and what is on, oldest first."""
    query = (
        select(TerminalWatch)
        .where(TerminalWatch.claim_id == claim_id, TerminalWatch.ended_at.is_(None))
        .order_by(TerminalWatch.id)
    )
    async with db.transaction() as session:
        return [_view_of(watch) for watch in await session.scalars(query)]


async def _check_holds(session: AsyncSession, claim_id: int, owner_hash: bytes) -> None:
    if not await holds(session, claim_id, owner_hash):
        raise NotFound("This browser holds no such seat.", code="no_seat")


async def _find_open(session: AsyncSession, claim_id: int, admin: str) -> TerminalWatch | None:
    query = select(TerminalWatch).where(
        TerminalWatch.claim_id == claim_id, TerminalWatch.admin == admin, TerminalWatch.ended_at.is_(None)
    )
    return await session.scalar(query.with_for_update())


async def _get_open(session: AsyncSession, claim_id: int, watch_id: int) -> tuple[Claim, TerminalWatch]:
    claim = await lock_claim(session, claim_id)
    watch = await session.get(TerminalWatch, watch_id, with_for_update=True)
    if claim is None or watch is None or watch.claim_id != claim_id or watch.ended_at is not None:
        raise NotFound("Nobody asks for this any more.", code="unknown_watch")
    return claim, watch


def _verb(watch: TerminalWatch) -> str:
    return "help in the terminals" if watch.may_type else "watch the terminals"


def _tell(session: AsyncSession, db: Database, claim: Claim, word: str, message: str, actor: Actor) -> None:
    record_event(
        session,
        f"watch.{word}",
        message,
        actor=actor,
        at=db.now(),
        pool_id=claim.pool_id,
        vm_id=claim.vm_id,
        claim_id=claim.id,
    )


def _view_of(watch: TerminalWatch) -> WatchView:
    return WatchView(watch.id, watch.claim_id, watch.admin, watch.may_type, watch.requested_at, watch.agreed_at)
