"""Which seat a request is about: that of the browser's cookie, or that of the seat key that a program sends."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query, Request

from backend.api.agents import BIGGEST_ID
from backend.api.auth import SAFE_METHODS, Address, Credentials, TheHouse, by_browser, find_bearer
from backend.api.cookies import check_same_origin
from backend.errors import Unauthenticated
from backend.services.claims import list_claims
from backend.services.holders import Holder
from backend.services.seat_keys import find_seat_by_key, hash_key
from backend.services.views import ClaimView

_NONE = "This needs an open seat in this browser, or its seat key (Authorization: Bearer …)."


async def get_seat(
    request: Request,
    house: TheHouse,
    given: Credentials,
    address: Address,
    _: Annotated[str | None, by_browser],
    claim: Annotated[int | None, Query(ge=1, le=BIGGEST_ID)] = None,
) -> ClaimView:
    """The open seat of who asks; of several the latest, or the one that ``claim`` names.

    Raises:
        Unauthenticated: this browser or key holds no such seat.
        Forbidden: a change by cookie that another site's page asked for.
    """
    key = find_bearer(given)
    if key is not None:
        held = [await find_seat_by_key(house.db, key, address=address)]
    else:
        owner_hash: bytes | None = request.state.owner_hash
        held = await list_claims(house.db, owner_hash=owner_hash, only_open=True) if owner_hash else []
    found = next((each for each in held if claim in (None, each.id)), None)
    if found is None:
        raise Unauthenticated(_NONE, code="no_seat")
    if key is None and request.method not in SAFE_METHODS:
        check_same_origin(request)
    return found


async def get_holder(request: Request, given: Credentials, address: Address) -> Holder:
    """By what the seat is held: services check it again in the transaction that changes something."""
    key = find_bearer(given)
    if key is not None:
        return Holder(key_hash=hash_key(key), address=address)
    return Holder(owner_hash=request.state.owner_hash, address=address)


Seat = Annotated[ClaimView, Depends(get_seat)]
SeatHolder = Annotated[Holder, Depends(get_holder)]
