"""Alarms by API: what somebody should look at, and that somebody has."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query

from backend.api.answers import AcknowledgedAnswer, AlarmsAnswer, refusals
from backend.api.auth import Address, Admin, TheHouse
from backend.api.messages import AcknowledgeMessage
from backend.services.alarms import acknowledge_alarms, list_open_alarms, list_recent_alarms

router = APIRouter(prefix="/api/admin/alarms", tags=["admin"], responses=refusals(401, 403, 422, 429))


@router.get("", response_model=AlarmsAnswer)
async def read_alarms(_: Admin, house: TheHouse, resolved: Annotated[int, Query(ge=0, le=1_000)] = 0) -> dict[str, Any]:
    """The open alarms, the gravest first; and so many of those that were resolved last, if asked for."""
    recent = await list_recent_alarms(house.db, limit=resolved) if resolved else []
    return {"alarms": [asdict(each) for each in [*await list_open_alarms(house.db), *recent]]}


@router.post("/acknowledge", response_model=AcknowledgedAnswer, responses=refusals(400, 413))
async def acknowledge(body: AcknowledgeMessage, admin: Admin, house: TheHouse, address: Address) -> dict[str, Any]:
    """Notes that somebody has seen to these; it rings again only for one that gets worse.

    What is resolved, acknowledged or unknown stays as it is, and is not counted.
    """
    return {"acknowledged": await acknowledge_alarms(house.db, body.ids, actor=admin.actor(address))}
