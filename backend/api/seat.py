"""A seat's own routes: for the browser in which it is open, and for programs that have its key."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request

from backend.api.agents import BIGGEST_ID
from backend.api.answers import WITH_BODY, refusals
from backend.api.auth import Address, TheHouse
from backend.api.cookies import check_same_origin
from backend.api.messages import SeatKeyMessage
from backend.api.seat_auth import Seat, SeatHolder
from backend.errors import Unauthenticated
from backend.house import House
from backend.services.claim_times import extend_claim, find_end
from backend.services.claims import get_claim, get_position, release_own_claim
from backend.services.pools import get_pool
from backend.services.seat_browsers import list_browsers, record_seen
from backend.services.seat_keys import open_seat_by_key, renew_own_key
from backend.services.seat_moves import request_move
from backend.services.seat_sign_outs import sign_out_browser, sign_out_others
from backend.services.views import ClaimView

router = APIRouter(prefix="/api/seat", tags=["seat"], responses=refusals(401, 403, 404, 409, 422, 429))


@router.get("")
async def read_seat(claim: Seat, holder: SeatHolder, house: TheHouse) -> dict[str, Any]:
    """The seat as it is now."""
    if holder.owner_hash is not None:
        await record_seen(house.db, claim.id, holder.owner_hash)
    return await _seat(house, claim)


@router.post("/open", responses=refusals(*WITH_BODY))
async def open_seat(body: SeatKeyMessage, request: Request, house: TheHouse, address: Address) -> dict[str, Any]:
    """Opens the seat of a key in this browser. A program needs no such thing: it sends the key as a Bearer token."""
    owner_hash: bytes | None = request.state.owner_hash
    if owner_hash is None:
        raise Unauthenticated("This is for browsers. Programs send the key itself (Bearer).", code="no_cookie")
    check_same_origin(request)
    user_agent = request.headers.get("user-agent")
    claim = await open_seat_by_key(
        house.db, body.seat_key, owner_hash=owner_hash, address=address, user_agent=user_agent
    )
    return await _seat(house, claim)


@router.post("/release")
async def release(claim: Seat, holder: SeatHolder, house: TheHouse) -> dict[str, Any]:
    """Gives the seat back, or leaves the line."""
    await release_own_claim(
        house.db, claim.id, owner_hash=holder.owner_hash, key_hash=holder.key_hash, address=holder.address
    )
    return await _seat(house, await get_claim(house.db, claim.id))


@router.post("/extend")
async def extend(claim: Seat, holder: SeatHolder, house: TheHouse) -> dict[str, Any]:
    """Stays: another whole duration from now on."""
    return await _seat(house, await extend_claim(house.db, claim.id, holder))


@router.post("/move")
async def move(claim: Seat, holder: SeatHolder, house: TheHouse) -> dict[str, Any]:
    """Moves to the next free machine. What is on the former one is removed."""
    return await _seat(house, await request_move(house.db, claim.id, holder))


@router.post("/key")
async def renew_key(claim: Seat, holder: SeatHolder, house: TheHouse) -> dict[str, str]:
    """A new seat key, shown this once; the old one dies."""
    return {"seat_key": await renew_own_key(house.db, claim.id, holder)}


@router.get("/browsers")
async def read_browsers(claim: Seat, holder: SeatHolder, house: TheHouse) -> dict[str, Any]:
    """Where the seat is open."""
    browsers = await list_browsers(house.db, claim.id, owner_hash=holder.owner_hash)
    return {
        "browsers": [
            {
                "id": each.id,
                "address": each.address,
                "user_agent": each.user_agent,
                "opened_at": each.opened_at.isoformat(),
                "last_seen_at": each.last_seen_at.isoformat(),
                "is_this": each.is_this,
            }
            for each in browsers
        ]
    }


@router.delete("/browsers")
async def sign_out_all_others(claim: Seat, holder: SeatHolder, house: TheHouse) -> dict[str, int]:
    """Signs every other browser out."""
    return {"signed_out": await sign_out_others(house.db, claim.id, holder)}


@router.delete("/browsers/{browser_id}")
async def sign_out_one(
    browser_id: Annotated[int, Path(ge=1, le=BIGGEST_ID)], claim: Seat, holder: SeatHolder, house: TheHouse
) -> dict[str, int]:
    """Signs one browser out, be it this one."""
    await sign_out_browser(house.db, claim.id, browser_id, holder)
    return {"signed_out": 1}


async def _seat(house: House, claim: ClaimView) -> dict[str, Any]:
    end = find_end(claim, await get_pool(house.db, claim.pool))
    return {
        "claim": claim.id,
        "pool": claim.pool,
        "email": claim.email,
        "status": claim.status,
        "reason": claim.reason,
        "hostname": claim.hostname,
        "position": await get_position(house.db, claim.id),
        "created_at": claim.created_at.isoformat(),
        "ends_at": _iso(end.at if end else None),
        "ends_by": end.kind if end else None,
        "is_warned": end is not None and house.db.now() >= end.warns_at,
    }


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at else None
