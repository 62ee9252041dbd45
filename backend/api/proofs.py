"""What a request brings along to be let into a pool."""

from __future__ import annotations

from starlette.requests import Request

from backend.api.person import find_person
from backend.house import House
from backend.services.admission import Proof


def make_proof(request: Request, house: House, *, code: str | None = None, link: str | None = None) -> Proof:
    """The join code and the personal link that were given, and whom the organisation vouches for in this browser."""
    return Proof(code=code, link=link, person=find_person(request, house), keys=house.keys)
