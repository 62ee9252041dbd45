"""Seat keys: short secrets that open a seat in another browser, or let a program act for it. Each use is an event."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import exists, select
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.errors import Conflict, NotFound, Unauthenticated
from backend.models import Claim, Event, Pool
from backend.services.actor import Actor
from backend.services.claims import record_opened, view_claim
from backend.services.codes import SEAT_KEY, is_code, new_code, show_code, tidy_code
from backend.services.guesses import WrongKey, counting_guesses
from backend.services.holders import Holder, actor_of, lock_held
from backend.services.moves import record_event
from backend.services.seat_browsers import add_browser
from backend.services.sessions import lock_claim
from backend.services.tokens import hash_token
from backend.services.views import ClaimView
from backend.states import OPEN_CLAIM

# A program may look at its seat every second; of one address that is one event in this time. Changes are events anyway.
QUIET_S = 600
_WRONG = "This seat key opens no seat. It ends with the seat; an organiser can make a new one."


def hash_key(typed: str) -> bytes:
    """What is stored of a seat key, however it was typed."""
    return hash_token(tidy_code(typed))


async def open_seat_by_key(
    db: Database, typed: str, *, owner_hash: bytes, address: str | None = None, user_agent: str | None = None
) -> ClaimView:
    """Opens the key's seat in this browser.

    Raises:
        Unauthenticated: the key opens no seat.
        Throttled: too many wrong ones from this address.
        Conflict: this browser holds another seat in the same pool.
    """
    async with counting_guesses(db, address), db.transaction() as session:
        claim = await _find(session, typed)
        locked = await lock_claim(session, claim.id)
        if locked is None or locked.status not in OPEN_CLAIM or locked.key_hash != hash_key(typed):
            raise WrongKey(_WRONG)
        await add_browser(session, db, locked, owner_hash, address=address, user_agent=user_agent)
        record_opened(session, db, locked, "by its key", address=address)
        return await view_claim(session, locked, await session.get_one(Pool, locked.pool_id))


async def find_seat_by_key(db: Database, typed: str, *, address: str | None) -> ClaimView:
    """The open seat of a key that a program sent.

    Raises:
        Unauthenticated: the key opens no seat.
        Throttled: too many wrong ones from this address.
    """
    # A token of another kind is no guess at a key.
    if not is_code(typed, SEAT_KEY):
        raise Unauthenticated(_WRONG, code="wrong_key")
    async with counting_guesses(db, address), db.transaction() as session:
        claim = await _find(session, typed)
        lately = select(Event.id).where(
            Event.at > db.now() - timedelta(seconds=QUIET_S),
            Event.kind == "claim.key_used",
            Event.claim_id == claim.id,
            Event.address.is_not_distinct_from(address),
        )
        if not await session.scalar(select(exists(lately))):
            message = f"The key of {claim.email}'s seat was used by a program"
            _note(session, db, claim, "claim.key_used", message, Actor.researcher(claim.email, address))
        return await view_claim(session, claim, await session.get_one(Pool, claim.pool_id))


async def renew_own_key(db: Database, claim_id: int, holder: Holder) -> str:
    """A new key for the seat that this holder holds, shown this once; the old one dies.

    Raises:
        NotFound: this holder holds no such seat.
        Conflict: the seat has ended.
    """
    async with db.transaction() as session:
        claim = await lock_held(session, claim_id, holder)
        return _renew(session, db, claim, actor_of(claim, holder))


async def reissue_key(db: Database, claim_id: int, *, actor: Actor) -> str:
    """A new key for somebody who lost theirs, shown to the admin this once; the old one dies.

    Raises:
        NotFound: no such seat.
        Conflict: the seat has ended.
    """
    actor.must_operate()
    async with db.transaction() as session:
        claim = await lock_claim(session, claim_id)
        if claim is None:
            raise NotFound("There is no such seat.")
        return _renew(session, db, claim, actor)


def _renew(session: AsyncSession, db: Database, claim: Claim, actor: Actor) -> str:
    if claim.status not in OPEN_CLAIM:
        raise Conflict("This seat has ended.", code="seat_ended")
    key = new_code(SEAT_KEY)
    claim.key_hash = hash_token(key)
    _note(session, db, claim, "claim.key_made", f"The seat of {claim.email} got a new key; the old one is dead", actor)
    return show_code(key)


async def _find(session: AsyncSession, typed: str) -> Claim:
    is_open = (Claim.key_hash == hash_key(typed), Claim.status.in_(OPEN_CLAIM))
    claim = await session.scalar(select(Claim).where(*is_open)) if is_code(typed, SEAT_KEY) else None
    if claim is None:
        raise WrongKey(_WRONG)
    return claim


def _note(session: AsyncSession, db: Database, claim: Claim, kind: str, message: str, actor: Actor) -> None:
    record_event(
        session,
        kind,
        message,
        actor=actor,
        at=db.now(),
        pool_id=claim.pool_id,
        vm_id=claim.vm_id,
        claim_id=claim.id,
    )
