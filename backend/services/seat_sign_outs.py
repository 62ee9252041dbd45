"""Signing browsers out of a seat: at once, their open pages included."""

from __future__ import annotations

from sqlalchemy import select

from backend.db.engine import Database
from backend.errors import NotFound
from backend.models import SeatBrowser
from backend.services.holders import Holder, actor_of, lock_held
from backend.services.moves import record_event


async def sign_out_browser(db: Database, claim_id: int, browser_id: int, holder: Holder) -> None:
    """Signs one browser out, be it this one.

    Raises:
        NotFound: this holder holds no such seat, or it is not open in that browser.
    """
    if not await _sign_out(db, claim_id, holder, browser_id=browser_id):
        raise NotFound("The seat is not open in this browser, or not any more.")


async def sign_out_others(db: Database, claim_id: int, holder: Holder) -> int:
    """Signs every other browser out. Returns how many there were.

    Raises:
        NotFound: this holder holds no such seat.
    """
    return await _sign_out(db, claim_id, holder, browser_id=None)


async def _sign_out(db: Database, claim_id: int, holder: Holder, *, browser_id: int | None) -> int:
    query = select(SeatBrowser).where(SeatBrowser.claim_id == claim_id, SeatBrowser.ended_at.is_(None))
    if browser_id is not None:
        query = query.where(SeatBrowser.id == browser_id)
    elif holder.owner_hash is not None:
        query = query.where(SeatBrowser.owner_hash != holder.owner_hash)
    async with db.transaction() as session:
        claim = await lock_held(session, claim_id, holder)
        rows = (await session.scalars(query.with_for_update())).all()
        for row in rows:
            row.ended_at = db.now()
            # What asks by this cookie for a seat of this pool is a stranger from now on.
            if claim.owner_hash == row.owner_hash:
                claim.owner_hash = None
            record_event(
                session,
                "claim.signed_out",
                f"A browser was signed out of the seat of {claim.email}",
                actor=actor_of(claim, holder),
                at=db.now(),
                pool_id=claim.pool_id,
                vm_id=claim.vm_id,
                claim_id=claim.id,
                data={"browser_address": row.address},
            )
        return len(rows)
