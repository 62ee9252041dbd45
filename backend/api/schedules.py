"""Schedules and budgets by API."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path

from backend.api.agents import BIGGEST_ID
from backend.api.answers import BudgetAnswer, BudgetsAnswer, ScheduleAnswer, SchedulesAnswer, refusals
from backend.api.auth import Address, Admin, TheHouse
from backend.api.messages import BudgetMessage, ScheduleMessage
from backend.services.budgets import BudgetView, lift_fuse, list_budgets, remove_budget, set_budget
from backend.services.schedules import ScheduleSpec, ScheduleView, create_schedule, list_schedules, remove_schedule

router = APIRouter(prefix="/api/admin", tags=["admin"], responses=refusals(400, 401, 403, 404, 409, 413, 422, 429))
Id = Annotated[int, Path(ge=1, le=BIGGEST_ID)]


@router.get("/schedules", response_model=SchedulesAnswer)
async def read_schedules(_: Admin, house: TheHouse) -> dict[str, Any]:
    """All schedules, each with its next class."""
    return {"schedules": [_schedule(each) for each in await list_schedules(house.db)]}


@router.post("/schedules", status_code=201, response_model=ScheduleAnswer)
async def post_schedule(body: ScheduleMessage, admin: Admin, house: TheHouse, address: Address) -> dict[str, Any]:
    """Makes a schedule."""
    spec = ScheduleSpec(
        name=body.name,
        zone=body.zone,
        weekdays=tuple(body.weekdays),
        starts=body.starts,
        stops=body.stops,
        first_on=body.first_on or house.db.now().date(),
        last_on=body.last_on,
        skips=frozenset(body.skips),
        count=body.count,
        catch_up_s=body.catch_up_s,
    )
    return _schedule(await create_schedule(house.db, body.pool, spec, actor=admin.actor(address)))


@router.delete("/schedules/{schedule_id}", status_code=204)
async def delete_schedule(schedule_id: Id, admin: Admin, house: TheHouse, address: Address) -> None:
    """Ends a schedule; a class that runs goes on, and is stopped at its time."""
    await remove_schedule(house.db, schedule_id, actor=admin.actor(address))


@router.get("/budgets", response_model=BudgetsAnswer)
async def read_budgets(_: Admin, house: TheHouse) -> dict[str, Any]:
    """All budgets, with what is spent of them."""
    return {"budgets": [_budget(each) for each in await list_budgets(house.db)]}


@router.put("/budgets/{pool}", response_model=BudgetAnswer)
async def put_budget(pool: str, body: BudgetMessage, admin: Admin, house: TheHouse, address: Address) -> dict[str, Any]:
    """Gives a pool a budget, or another one."""
    actor = admin.actor(address)
    return _budget(await set_budget(house.db, pool, body.dollars, is_from_now=body.from_now, actor=actor))


@router.post("/budgets/{pool}/lift", response_model=BudgetAnswer)
async def post_lift(pool: str, admin: Admin, house: TheHouse, address: Address) -> dict[str, Any]:
    """Lifts the fuse of a pool whose budget is spent."""
    return _budget(await lift_fuse(house.db, pool, actor=admin.actor(address)))


@router.delete("/budgets/{pool}", status_code=204)
async def delete_budget(pool: str, admin: Admin, house: TheHouse, address: Address) -> None:
    """Takes a pool's budget away."""
    await remove_budget(house.db, pool, actor=admin.actor(address))


def _schedule(schedule: ScheduleView) -> dict[str, Any]:
    rule = schedule.rule
    return {
        "id": schedule.id,
        "pool": schedule.pool,
        "name": schedule.name,
        "zone": rule.zone,
        "weekdays": list(rule.weekdays),
        "starts": rule.starts,
        "stops": rule.stops,
        "first_on": rule.first_on,
        "last_on": rule.last_on,
        "skips": sorted(rule.skips),
        "count": schedule.count,
        "catch_up_s": schedule.catch_up_s,
        "paused": schedule.is_paused,
        "next_starts_at": schedule.next.starts_at if schedule.next else None,
        "next_stops_at": schedule.next.stops_at if schedule.next else None,
    }


def _budget(budget: BudgetView) -> dict[str, Any]:
    return {
        "pool": budget.pool,
        "dollars": budget.dollars,
        "spent": budget.spent,
        "counts_from": budget.counts_from,
        "fused": budget.is_fused,
        "lifted": budget.is_lifted,
    }
