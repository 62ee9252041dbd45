"""Chrome Remote Desktop of a seat, for its holder: the pasted line goes in, the state and the PIN come out."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from backend.api.answers import WITH_BODY, refusals
from backend.api.auth import TheHouse
from backend.api.messages import CrdMessage
from backend.api.seat_auth import Seat, SeatHolder
from backend.errors import NotFound
from backend.house import House
from backend.services.crd import CrdView, get_crd, get_pin, request_crd
from backend.services.holders import Holder
from backend.services.views import ClaimView

router = APIRouter(prefix="/api/seat", tags=["seat"], responses=refusals(401, 403, 404, 409, 422, 429))


@router.post("/crd_command", status_code=202, responses=refusals(*WITH_BODY))
async def set_crd_command(body: CrdMessage, claim: Seat, holder: SeatHolder, house: TheHouse) -> dict[str, Any]:
    """Takes the line that Google shows. What comes of it shows live on the seat's page, and in `GET /api/seat/crd`."""
    view = await request_crd(house.db, house.keys, claim.id, body.crd_command, holder)
    return await _answer(house, claim, holder, view)


@router.get("/crd")
async def read_crd(claim: Seat, holder: SeatHolder, house: TheHouse) -> dict[str, Any]:
    """How far it is, with the link once it is ready, and the PIN that Google will ask for."""
    return await _answer(house, claim, holder, await get_crd(house.db, claim.id, holder))


async def _answer(house: House, claim: ClaimView, holder: Holder, view: CrdView) -> dict[str, Any]:
    try:
        pin = await get_pin(house.db, house.keys, claim.id, holder)
    except NotFound:
        pin = None
    return {"status": view.status, "detail": view.detail, "link": view.link, "pin": pin}
