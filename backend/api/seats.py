"""The routes for researchers: claim a seat, and open one by its link."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response

from backend.api.answers import ClaimedAnswer, WaitingAnswer, refusals
from backend.api.auth import Address, TheHouse
from backend.api.cookies import check_same_origin
from backend.api.messages import ClaimMessage
from backend.api.proofs import make_proof
from backend.services.claims import ClaimResult, open_seat_link, request_claim
from backend.services.throttles import counting_failures

router = APIRouter(tags=["researcher"])


@router.post(
    "/api/request_vm",
    status_code=201,
    response_model=ClaimedAnswer,
    responses={
        200: {"model": ClaimedAnswer, "description": "this browser's own seat, or that of the Idempotency-Key"},
        202: {"model": WaitingAnswer, "description": "in line"},
        **refusals(400, 403, 404, 409, 413, 422, 429),
    },
)
async def request_vm(
    body: ClaimMessage,
    request: Request,
    house: TheHouse,
    address: Address,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> JSONResponse:
    """Claims a seat, or a place in line. The same browser, or the same Idempotency-Key, gets what it has.

    ``seat_key`` is in the answer that made the claim, and never again.
    """
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
        proof=make_proof(request, house, code=body.code, link=body.me),
    )
    seat_url = f"{house.settings.public_url}/seat"
    if result.link is not None:
        seat_url += f"/open/{result.link}"
    return _answer(result, seat_url)


@router.get("/seat/open/{link}", include_in_schema=False)
async def open_seat(link: str, request: Request, house: TheHouse, address: Address) -> Response:
    """Makes the seat of a link this browser's own, once."""
    user_agent = request.headers.get("user-agent")
    async with counting_failures(house.db, "seat_link", throttle=house.throttle, address=address):
        await open_seat_link(
            house.db, link, owner_hash=request.state.owner_hash, address=address, user_agent=user_agent
        )
    # Without the referrer the spent link stays out of other people's logs.
    return RedirectResponse("/seat", status_code=303, headers={"Referrer-Policy": "no-referrer"})


def _answer(result: ClaimResult, seat_url: str) -> JSONResponse:
    claim = result.claim
    content: dict[str, Any] = {"status": claim.status, "seat_url": seat_url}
    if result.seat_key is not None:
        content["seat_key"] = result.seat_key
    if result.position is not None:
        return JSONResponse({**content, "position": result.position}, status_code=202)
    return JSONResponse({**content, "hostname": claim.hostname}, status_code=201 if result.created else 200)
