"""Rehearsals by API."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path

from backend.api.agents import BIGGEST_ID
from backend.api.answers import RehearsalAnswer, refusals
from backend.api.auth import Address, Admin, TheHouse
from backend.api.messages import RehearsalMessage
from backend.services.rehearsal_need import Expected
from backend.services.rehearsals import RehearsalView, end_rehearsal, get_rehearsal, start_rehearsal
from backend.tasks.rehearser import rules_of

router = APIRouter(prefix="/api/admin/rehearsals", tags=["admin"], responses=refusals(401, 403, 422, 429))
Id = Annotated[int, Path(ge=1, le=BIGGEST_ID)]


@router.post("", status_code=201, response_model=RehearsalAnswer, responses=refusals(400, 404, 409, 413))
async def begin(body: RehearsalMessage, admin: Admin, house: TheHouse, address: Address) -> dict[str, Any]:
    """Begins a rehearsal of a pool."""
    expected = Expected(body.people, round(body.over_minutes * 60), body.starts_at, body.zone)
    rehearsal = await start_rehearsal(
        house.db,
        body.pool,
        expected,
        rules_of(house.settings),
        with_arrivals=body.arrivals,
        actor=admin.actor(address),
    )
    return plain_rehearsal(rehearsal)


@router.get("/{rehearsal_id}", response_model=RehearsalAnswer, responses=refusals(404))
async def read(rehearsal_id: Id, _: Admin, house: TheHouse) -> dict[str, Any]:
    """How far a rehearsal is, and its verdict."""
    return plain_rehearsal(await get_rehearsal(house.db, rehearsal_id))


@router.post("/{rehearsal_id}/end", response_model=RehearsalAnswer, responses=refusals(404))
async def end(rehearsal_id: Id, admin: Admin, house: TheHouse, address: Address) -> dict[str, Any]:
    """Breaks a rehearsal off; robots give their machines back."""
    return plain_rehearsal(await end_rehearsal(house.db, rehearsal_id, actor=admin.actor(address)))


def plain_rehearsal(rehearsal: RehearsalView) -> dict[str, Any]:
    """A rehearsal as JSON shows it. The name of the pool of a replay is not told: it opens that pool."""
    expected = rehearsal.expected
    return {
        "id": rehearsal.id,
        "pool": rehearsal.pool,
        "status": rehearsal.status,
        "people": expected.people,
        "over_minutes": expected.over_s / 60,
        "starts_at": expected.starts_at,
        "zone": expected.zone,
        "created_at": rehearsal.created_at,
        "ended_at": rehearsal.ended_at,
        "reason": rehearsal.reason,
        "verdict": rehearsal.verdict,
        "need": rehearsal.need.as_json(),
        "machines": [
            {
                "hostname": machine.hostname,
                "status": machine.status,
                "step": machine.step,
                "connection": machine.connection,
                "said": machine.said,
                "problem": machine.problem,
                "remedy": machine.remedy,
            }
            for machine in rehearsal.machines
        ],
        "arrivals": {key: value for key, value in rehearsal.arrivals.items() if key != "pool"},
        "reasons": [asdict(reason) for reason in rehearsal.reasons],
    }
