"""The routes for researchers: claim a seat, and open one by its link."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response

from backend.api.auth import Address, TheHouse
from backend.api.cookies import check_same_origin
from backend.api.messages import ClaimMessage
from backend.services.claims import ClaimResult, open_seat_link, request_claim

router = APIRouter(tags=["researcher"])


@router.post(
    "/api/request_vm",
    status_code=201,
    responses={
        200: {"description": "this browser's own seat"},
        202: {"description": "in line"},
        409: {"description": "seat_exists"},
    },
)
async def request_vm(
    body: ClaimMessage,
    request: Request,
    house: TheHouse,
    address: Address,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> JSONResponse:
    """Claims a seat, or a place in line. The same browser, or the same Idempotency-Key, gets what it has."""
    owner_hash: bytes | None = request.state.owner_hash
    if owner_hash is not None:
        check_same_origin(request)
    result = await request_claim(
        house.db,
        body.pool,
        body.email,
        owner_hash=owner_hash,
        idempotency_key=idempotency_key,
        address=address,
        user_agent=request.headers.get("user-agent"),
    )
    seat_url = f"{house.settings.public_url}/seat"
    if result.link is not None:
        seat_url += f"/open/{result.link}"
    return _answer(result, seat_url)


@router.get("/seat/open/{link}", include_in_schema=False)
async def open_seat(link: str, request: Request, house: TheHouse, address: Address) -> Response:
    """Makes the seat of a link this browser's own, once."""
    user_agent = request.headers.get("user-agent")
    await open_seat_link(house.db, link, owner_hash=request.state.owner_hash, address=address, user_agent=user_agent)
    # Without the referrer the spent link stays out of other people's logs.
    return RedirectResponse("/seat", status_code=303, headers={"Referrer-Policy": "no-referrer"})


def _answer(result: ClaimResult, seat_url: str) -> JSONResponse:
    claim = result.claim
    if result.position is not None:
        content = {"status": claim.status, "position": result.position, "seat_url": seat_url}
        return JSONResponse(content, status_code=202)
    content = {"hostname": claim.hostname, "status": claim.status, "seat_url": seat_url}
    return JSONResponse(content, status_code=201 if result.created else 200)
