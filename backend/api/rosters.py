"""Rosters by API: for the console's own page, and for admins' programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from backend.api.answers import refusals
from backend.api.auth import Address, Admin, TheHouse
from backend.errors import Forbidden
from backend.services.pools import get_pool
from backend.services.roster_text import decode_roster, parse_roster
from backend.services.rosters import import_roster, record_export, write_links
from backend.states import Role

router = APIRouter(
    prefix="/api/admin/pools", tags=["admin"], responses=refusals(400, 401, 403, 404, 409, 413, 422, 429)
)
_BODY = {
    "requestBody": {
        "required": True,
        "description": "one person a line: an e-mail and, after a comma, semicolon or tab, a label",
        "content": {"text/csv": {"schema": {"type": "string"}}},
    }
}


@router.post("/{pool}/roster", openapi_extra=_BODY)
async def post_roster(
    pool: str,
    request: Request,
    admin: Admin,
    house: TheHouse,
    address: Address,
    *,
    save: Annotated[bool, Query(description="false only checks the lines")] = False,
) -> dict[str, Any]:
    """Checks a roster line by line; with ``save`` the good lines are imported, and the bad ones left out."""
    roster = parse_roster(decode_roster(await request.body()))
    answer: dict[str, Any] = {
        "good": len(roster.people),
        "repeated": roster.repeated,
        "bad": [asdict(line) for line in roster.bad],
    }
    if save:
        return answer | asdict(await import_roster(house.db, pool, roster.people, actor=admin.actor(address)))
    await get_pool(house.db, pool)
    return answer


@router.get("/{pool}/roster.csv", response_class=Response)
async def read_links(pool: str, admin: Admin, house: TheHouse, address: Address) -> Response:
    """Everybody's personal link, to hand out. Links are keys: a viewer gets none, and each download is an event."""
    if admin.role is Role.VIEWER:
        raise Forbidden("A viewer may look, but personal links are keys.")
    entries = await record_export(house.db, pool, actor=admin.actor(address))
    written = write_links(house.keys, house.settings.public_url, pool, entries)
    # The mark at the beginning tells spreadsheets that it is UTF-8.
    headers = {"Content-Disposition": f'attachment; filename="{pool}-links.csv"', "Cache-Control": "no-store"}
    return Response("\ufeff" + written, media_type="text/csv; charset=utf-8", headers=headers)
