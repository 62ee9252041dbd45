"""Which seat a request is about: that of the browser's cookie."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query, Request

from backend.api.auth import SAFE_METHODS, TheHouse
from backend.api.cookies import check_same_origin
from backend.errors import Unauthenticated
from backend.services.claims import list_claims
from backend.services.views import ClaimView

_NONE = "This needs an open seat in this browser."


async def get_seat(request: Request, house: TheHouse, claim: Annotated[int | None, Query(ge=1)] = None) -> ClaimView:
    """The open seat of who asks; of several the latest, or the one that ``claim`` names.

    Raises:
        Unauthenticated: this browser holds no such seat.
        Forbidden: a change by cookie that another site's page asked for.
    """
    owner_hash: bytes | None = request.state.owner_hash
    held = await list_claims(house.db, owner_hash=owner_hash, only_open=True) if owner_hash else []
    found = next((each for each in held if claim in (None, each.id)), None)
    if found is None:
        raise Unauthenticated(_NONE, code="no_seat")
    if request.method not in SAFE_METHODS:
        check_same_origin(request)
    return found


Seat = Annotated[ClaimView, Depends(get_seat)]
