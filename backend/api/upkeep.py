"""Before and after a launch by API: preflight, costs, findings and their mending, states."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path
from fastapi.responses import Response

from backend.api.agents import BIGGEST_ID
from backend.api.answers import (
    CostsAnswer,
    FindingsAnswer,
    LaunchAnswer,
    MendedAnswer,
    PreflightAnswer,
    StatesAnswer,
    refusals,
)
from backend.api.auth import Address, Admin, TheHouse
from backend.api.messages import PreflightMessage, Words
from backend.errors import NotFound
from backend.house import House
from backend.services.actor import Actor
from backend.services.costs import get_costs, preview_launch
from backend.services.findings import list_findings, record_state_download
from backend.services.operations import request_rebuild
from backend.services.pools import get_pool, list_pools

router = APIRouter(prefix="/api/admin", tags=["admin"], responses=refusals(401, 403, 422, 429))
PoolName = Annotated[Words, Path(max_length=255)]


@router.post("/preflight", response_model=PreflightAnswer, responses=refusals(400, 404, 409, 413))
async def preflight(body: PreflightMessage, _: Admin, house: TheHouse) -> dict[str, Any]:
    """How things stand for a launch, and what it would cost. Makes nothing."""
    seen = await preview_launch(house.db, body.pool, body.count, hours=body.hours)
    checks = await house.preflight(body.pool, body.count)
    price = seen.price
    return {
        "checks": [asdict(each) for each in checks],
        "problem": seen.problem,
        "cost": {
            "price_per_hour": price.per_hour if price else None,
            "source": price.source if price else None,
            "as_of": price.as_of if price else None,
            "per_hour": seen.per_hour,
            "hours": seen.hours,
            "planned": seen.planned,
        },
    }


@router.get("/costs", response_model=CostsAnswer)
async def costs(_: Admin, house: TheHouse) -> dict[str, Any]:
    """US dollars: of all VMs now and of today (UTC), in total and by pool."""
    found, pools = await get_costs(house.db), await list_pools(house.db)
    by_pool = {pool.name: found.by_pool[pool.id] for pool in pools if pool.id in found.by_pool}
    return {
        "per_hour": found.per_hour,
        "today": found.today,
        "pools": {name: {"per_hour": each.per_hour, "today": each.today} for name, each in by_pool.items()},
    }


@router.get("/findings", response_model=FindingsAnswer)
async def findings(_: Admin, house: TheHouse) -> dict[str, Any]:
    """Where database, Terraform's state and the cloud disagree, as of the last look."""
    return {"findings": [_plain(asdict(each)) for each in await list_findings(house.db)]}


@router.post("/findings/look", response_model=FindingsAnswer)
async def look(_: Admin, house: TheHouse) -> dict[str, Any]:
    """Looks now."""
    await house.reconciler.look()
    return {"findings": [_plain(asdict(each)) for each in await list_findings(house.db)]}


@router.post("/findings/{finding_id}/mend", response_model=MendedAnswer, responses=refusals(404, 409))
async def mend(
    finding_id: Annotated[int, Path(ge=1, le=BIGGEST_ID)], admin: Admin, house: TheHouse, address: Address
) -> dict[str, Any]:
    """Does what the finding's ``mend`` says, if a fresh look still finds it."""
    return asdict(await house.reconciler.mend(finding_id, actor=admin.actor(address)))


@router.post("/pools/{name}/rebuild", status_code=202, response_model=LaunchAnswer, responses=refusals(404, 409))
async def rebuild(name: PoolName, admin: Admin, house: TheHouse, address: Address) -> dict[str, Any]:
    """Makes the pool's state say what exists; touches no VM."""
    operation = await request_rebuild(house.db, name, actor=admin.actor(address))
    return {"operation_id": operation.id, "hostnames": []}


@router.get("/pools/{name}/states", response_model=StatesAnswer, responses=refusals(404))
async def states(name: PoolName, _: Admin, house: TheHouse) -> dict[str, Any]:
    """The pool's state and its backups, the newest first."""
    pool = await get_pool(house.db, name)
    provider = house.providers.get(pool.provider)
    found = await provider.facts.list_states(pool) if provider else []
    return {"states": [_plain(asdict(each)) for each in found]}


@router.get(
    "/pools/{name}/states/{file}",
    response_class=Response,
    responses={200: {"content": {"application/json": {}}}, **refusals(404)},
)
async def download(
    name: PoolName, file: Annotated[Words, Path(max_length=255)], admin: Admin, house: TheHouse, address: Address
) -> Response:
    """One state, as Terraform wrote it. Only for admins: it may hold secrets. ``file``: its name in the list."""
    return await make_state_file(house, name, file, actor=admin.actor(address))


async def make_state_file(house: House, pool_name: str, file: str, *, actor: Actor) -> Response:
    """A state for download, written down in the history.

    Raises:
        Forbidden: no admin.
        NotFound: no such pool or state.
    """
    actor.must_administer()
    pool = await get_pool(house.db, pool_name)
    provider = house.providers.get(pool.provider)
    content = await provider.facts.read_state(pool, file) if provider else None
    if content is None:
        raise NotFound("There is no such state.", code="unknown_state")
    await record_state_download(house.db, pool, file, actor=actor)
    headers = {"Content-Disposition": f'attachment; filename="{pool.name}.tfstate"', "Cache-Control": "no-store"}
    return Response(content, media_type="application/json", headers=headers)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value.isoformat() if isinstance(value, datetime) else value for key, value in values.items()}
