"""The console by API: for admins, with an API token or a session."""

from __future__ import annotations

from dataclasses import asdict, fields
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from backend.api.agents import BIGGEST_ID
from backend.api.answers import (
    DestroyAnswer,
    InstancesAnswer,
    LaunchAnswer,
    OperationAnswer,
    TokensAnswer,
    refusals,
)
from backend.api.auth import Address, Admin, TheHouse
from backend.api.messages import CreateMessage, DestroyMessage, EnrolmentsMessage, Words
from backend.services.destroys import request_destroy, request_destroy_pool
from backend.services.enrolments import create_enrolments
from backend.services.operations import get_operation, request_launch
from backend.services.views import OperationView, VmView
from backend.services.vms import list_vms

router = APIRouter(prefix="/api/admin", tags=["admin"], responses=refusals(401, 403, 422, 429))
_OF_VM = tuple(field.name for field in fields(VmView))


@router.get("/instances", response_model=InstancesAnswer)
async def list_instances(
    _: Admin,
    house: TheHouse,
    pool: Annotated[Words | None, Query(max_length=255)] = None,
    limit: Annotated[int | None, Query(ge=1, le=10_000)] = None,
) -> dict[str, Any]:
    """All VMs that exist, by hostname."""
    return {"instances": [_instance(vm) for vm in await list_vms(house.db, pool=pool, limit=limit)]}


@router.post("/create", status_code=202, response_model=LaunchAnswer, responses=refusals(400, 404, 409, 413))
async def create(body: CreateMessage, admin: Admin, house: TheHouse, address: Address) -> dict[str, Any]:
    """Launches VMs."""
    operation = await request_launch(house.db, body.pool, body.count, actor=admin.actor(address))
    return {"operation_id": operation.id, "hostnames": list(operation.hostnames)}


@router.post("/destroy", status_code=202, response_model=DestroyAnswer, responses=refusals(400, 404, 409, 413))
async def destroy(body: DestroyMessage, admin: Admin, house: TheHouse, address: Address) -> dict[str, Any]:
    """Takes VMs away: some by name, or all of a pool. Seats on them end."""
    actor = admin.actor(address)
    if body.hostnames is not None:
        hostnames = sorted(set(body.hostnames))
        operations = await request_destroy(house.db, hostnames, actor=actor)
    else:
        operations, hostnames = await request_destroy_pool(house.db, body.pool or "", actor=actor)
    ids = [operation.id for operation in operations]
    return {"operation_id": ids[0] if ids else None, "operation_ids": ids, "hostnames": hostnames}


@router.get("/operations/{operation_id}", response_model=OperationAnswer, responses=refusals(404))
async def read_operation(
    operation_id: Annotated[int, Path(ge=1, le=BIGGEST_ID)], _: Admin, house: TheHouse
) -> dict[str, Any]:
    """One operation with its progress per VM."""
    return _operation(await get_operation(house.db, operation_id))


@router.post("/enrolments", status_code=201, response_model=TokensAnswer, responses=refusals(400, 404, 409, 413))
async def create_tokens(body: EnrolmentsMessage, admin: Admin, house: TheHouse, address: Address) -> dict[str, Any]:
    """Tokens for machines that join by themselves, shown this once."""
    return {"tokens": await create_enrolments(house.db, body.pool, body.count, actor=admin.actor(address))}


def _instance(vm: VmView) -> dict[str, Any]:
    # Not by asdict: it copies what is within as well, which is two thirds of the time that a list of 500 takes.
    values = {name: getattr(vm, name) for name in _OF_VM}
    return _plain(values) | {"conditions": [{**each.as_json(), "remedy": each.remedy} for each in vm.conditions]}


def _operation(operation: OperationView) -> dict[str, Any]:
    return {**_plain(asdict(operation)), "hostnames": list(operation.hostnames)}


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value.isoformat() if isinstance(value, datetime) else value for key, value in values.items()}
