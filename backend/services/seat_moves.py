"""Moves: the same seat, link and key on another machine, when the one at hand gives trouble."""

from __future__ import annotations

from backend.db.engine import Database
from backend.errors import Conflict
from backend.models import Pool
from backend.services.claims import view_claim
from backend.services.holders import Holder, actor_of, lock_held
from backend.services.seating import find_free_vm
from backend.services.sessions import move_seat
from backend.services.views import ClaimView
from backend.states import HOLDING_CLAIM


async def request_move(db: Database, claim_id: int, holder: Holder) -> ClaimView:
    """Moves a seat to the next free machine of its pool; the former one is cleaned of what is on it.

    Raises:
        NotFound: this holder holds no such seat.
        Conflict: it holds no machine, or none is free.
    """
    async with db.transaction() as session:
        claim = await lock_held(session, claim_id, holder)
        if claim.status not in HOLDING_CLAIM:
            raise Conflict("This seat holds no machine now.", code="no_machine")
        vm = await find_free_vm(session, claim.pool_id)
        if vm is None:
            raise Conflict("No other machine is free right now. You keep the one you have.", code="none_free")
        await move_seat(session, claim, vm, actor=actor_of(claim, holder), at=db.now())
        return await view_claim(session, claim, await session.get_one(Pool, claim.pool_id))
