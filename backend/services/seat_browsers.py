"""Browsers: in which of them a seat is open. Whoever holds one of their cookies holds the seat."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import exists, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql import ColumnElement

from backend.db.engine import Database, violated_constraint
from backend.errors import Conflict
from backend.models import Claim, SeatBrowser
from backend.states import OPEN_CLAIM

SEEN_S = 60


@dataclass(frozen=True, slots=True)
class BrowserView:
    """A browser in which a seat is open, as its owner sees it."""

    id: int
    address: str | None
    user_agent: str | None
    opened_at: datetime
    last_seen_at: datetime
    is_this: bool


def is_open_in(owner_hash: bytes) -> ColumnElement[bool]:
    """The condition that a claim is open in this browser, for queries over claims."""
    return exists().where(
        SeatBrowser.claim_id == Claim.id, SeatBrowser.owner_hash == owner_hash, SeatBrowser.ended_at.is_(None)
    )


async def holds(session: AsyncSession, claim_id: int, owner_hash: bytes) -> bool:
    """Whether this browser holds the seat."""
    query = select(SeatBrowser.id).where(
        SeatBrowser.claim_id == claim_id, SeatBrowser.owner_hash == owner_hash, SeatBrowser.ended_at.is_(None)
    )
    return await session.scalar(query) is not None


async def list_browsers(db: Database, claim_id: int, *, owner_hash: bytes | None) -> list[BrowserView]:
    """Where a seat is open, the latest seen first. ``owner_hash`` says which of them is this one."""
    query = (
        select(SeatBrowser)
        .where(SeatBrowser.claim_id == claim_id, SeatBrowser.ended_at.is_(None))
        .order_by(SeatBrowser.last_seen_at.desc(), SeatBrowser.id)
    )
    async with db.transaction() as session:
        return [
            BrowserView(
                row.id, row.address, row.user_agent, row.opened_at, row.last_seen_at, row.owner_hash == owner_hash
            )
            for row in await session.scalars(query)
        ]


async def record_seen(db: Database, claim_id: int, owner_hash: bytes) -> None:
    """Notes that a seat's page is open in this browser; written once a minute."""
    query = (
        update(SeatBrowser)
        .where(
            SeatBrowser.claim_id == claim_id,
            SeatBrowser.owner_hash == owner_hash,
            SeatBrowser.ended_at.is_(None),
            SeatBrowser.last_seen_at < db.now() - timedelta(seconds=SEEN_S),
        )
        .values(last_seen_at=db.now())
    )
    async with db.transaction() as session:
        await session.execute(query)


async def add_browser(
    session: AsyncSession,
    db: Database,
    claim: Claim,
    owner_hash: bytes,
    *,
    address: str | None = None,
    user_agent: str | None = None,
) -> None:
    """Opens a locked claim in a browser; one in which it is open already stays as it is.

    Raises:
        Conflict: this browser holds another seat in the same pool.
    """
    other = select(Claim.id).where(
        Claim.pool_id == claim.pool_id, Claim.status.in_(OPEN_CLAIM), Claim.id != claim.id, is_open_in(owner_hash)
    )
    if await session.scalar(other) is not None:
        raise _other_seat()
    if claim.owner_hash is None:
        # The unique index over this column refuses a second seat even to two requests at the same moment.
        claim.owner_hash = owner_hash
        try:
            await session.flush()
        except IntegrityError as exc:
            if violated_constraint(exc) == "uq_claims_open_owner":
                raise _other_seat() from exc
            raise
    row = insert(SeatBrowser).values(
        claim_id=claim.id,
        owner_hash=owner_hash,
        address=address,
        user_agent=(user_agent or "")[:300] or None,
        opened_at=db.now(),
        last_seen_at=db.now(),
    )
    await session.execute(row.on_conflict_do_nothing())


def _other_seat() -> Conflict:
    return Conflict("This browser already holds another seat in the same pool.", code="seat_exists")
