"""Logs as files, for whoever is signed in: by plain HTTP, so that the browser saves them while they are written."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from backend.api.log_files import Hostname, OperationId, VmId, make_operation_file, make_vm_file
from lablink_ui.visits import find_visit, to_login

router = APIRouter(include_in_schema=False)


@router.get("/admin/instances/{hostname}/log.txt")
async def machine_log(request: Request, hostname: Hostname, vm: VmId = None) -> Response:
    """The log of a machine, living or gone."""
    visit = await find_visit(request)
    return await make_vm_file(visit.house, hostname, vm) if visit else to_login(request)


@router.get("/admin/operations/{operation_id}/log.txt")
async def operation_log(request: Request, operation_id: OperationId) -> Response:
    """The log of an operation."""
    visit = await find_visit(request)
    return await make_operation_file(visit.house, operation_id) if visit else to_login(request)
