"""Logs as files, by plain HTTP, so that the browser saves them while they are written; and the way to what is gone."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Path, Request
from fastapi.responses import RedirectResponse, Response

from backend.api.log_files import Hostname, OperationId, VmId, make_operation_file, make_vm_file
from backend.services.vms import get_vm_by_id
from lablink_ui.visits import find_visit, to_login

router = APIRouter(include_in_schema=False)


@router.get("/admin/instances/{hostname}/log.txt")
async def machine_log(request: Request, hostname: Hostname, vm: VmId = None) -> Response:
    """The log of a machine, living or gone."""
    visit = await find_visit(request)
    return await make_vm_file(visit.house, hostname, vm) if visit else to_login(request)


@router.get("/admin/instances/by-id/{vm_id}")
async def machine_by_id(request: Request, vm_id: Annotated[int, Path(ge=1, le=2**31 - 1)]) -> Response:
    """The page of a machine that only its number names, such as one that is gone."""
    visit = await find_visit(request)
    if visit is None:
        return to_login(request)
    vm = await get_vm_by_id(visit.house.db, vm_id)
    return RedirectResponse(f"/admin/instances/{quote(vm.hostname, safe='')}?vm={vm.id}", status_code=303)


@router.get("/admin/operations/{operation_id}/log.txt")
async def operation_log(request: Request, operation_id: OperationId) -> Response:
    """The log of an operation."""
    visit = await find_visit(request)
    return await make_operation_file(visit.house, operation_id) if visit else to_login(request)
