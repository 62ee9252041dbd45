"""API tokens by API: for admins alone."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path

from backend.api.agents import BIGGEST_ID
from backend.api.answers import refusals
from backend.api.auth import Address, Admin, TheHouse
from backend.api.messages import TokenMessage
from backend.services.api_tokens import ApiTokenView, create_api_token, list_api_tokens, revoke_api_token

router = APIRouter(
    prefix="/api/admin/tokens", tags=["admin"], responses=refusals(400, 401, 403, 404, 409, 413, 422, 429)
)


@router.get("")
async def list_tokens(_: Admin, house: TheHouse) -> dict[str, Any]:
    """The tokens that still work; never their secrets."""
    return {"tokens": [_plain(token) for token in await list_api_tokens(house.db)]}


@router.post("", status_code=201)
async def create_token(body: TokenMessage, admin: Admin, house: TheHouse, address: Address) -> dict[str, Any]:
    """Makes a token; its secret is shown this once."""
    actor = admin.actor(address)
    token, secret = await create_api_token(house.db, body.name, body.role, days=body.days, actor=actor)
    return {**_plain(token), "token": secret}


@router.delete("/{token_id}", status_code=204)
async def revoke_token(
    token_id: Annotated[int, Path(ge=1, le=BIGGEST_ID)], admin: Admin, house: TheHouse, address: Address
) -> None:
    """Ends a token, and what was made with it."""
    await revoke_api_token(house.db, token_id, actor=admin.actor(address))


def _plain(token: ApiTokenView) -> dict[str, Any]:
    return {
        "id": token.id,
        "name": token.name,
        "role": token.role,
        "created_by": token.created_by,
        "created_at": token.created_at.isoformat(),
        "expires_at": token.expires_at.isoformat() if token.expires_at else None,
        "last_used_at": token.last_used_at.isoformat() if token.last_used_at else None,
    }
