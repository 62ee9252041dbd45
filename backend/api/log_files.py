"""Logs as text files: a machine's, living or gone, and an operation's; written while they are read."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from fastapi.responses import StreamingResponse

from backend.api.agents import BIGGEST_ID
from backend.api.answers import refusals
from backend.api.auth import Admin, TheHouse
from backend.db.engine import Database
from backend.house import House
from backend.services.operation_logs import iterate_operation_log, list_terraform_lines
from backend.services.operations import get_operation
from backend.services.views import LogLineView, VmView
from backend.services.vm_logs import LogCursor, iterate_vm_log
from backend.services.vms import get_named

router = APIRouter(prefix="/api/admin", tags=["admin"], responses=refusals(401, 403, 404, 422, 429))
Hostname = Annotated[str, Path(max_length=255)]
VmId = Annotated[int | None, Query(ge=1, le=2**31 - 1)]
OperationId = Annotated[int, Path(ge=1, le=BIGGEST_ID)]

_FILE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "the log, a line each"}
}


@router.get("/instances/{hostname}/log", response_model=None, responses=_FILE)
async def read_vm_log(hostname: Hostname, _: Admin, house: TheHouse, vm: VmId = None) -> StreamingResponse:
    """A machine's log. Of several that bore the name the living or the latest, or the one with the id ``vm``."""
    return await make_vm_file(house, hostname, vm)


@router.get("/operations/{operation_id}/log", response_model=None, responses=_FILE)
async def read_operation_log(operation_id: OperationId, _: Admin, house: TheHouse) -> StreamingResponse:
    """What Terraform said in an operation."""
    return await make_operation_file(house, operation_id)


async def make_vm_file(house: House, hostname: str, vm_id: int | None) -> StreamingResponse:
    """The log of a machine as a file.

    Raises:
        NotFound: no such machine.
    """
    vm = await get_named(house.db, hostname, vm_id)
    return _file(f"lablink-{vm.hostname}-{house.db.now():%Y-%m-%d}.log", _write_vm_log(house.db, vm))


async def make_operation_file(house: House, operation_id: int) -> StreamingResponse:
    """The log of an operation as a file.

    Raises:
        NotFound: no such operation.
    """
    operation = await get_operation(house.db, operation_id)
    lines = iterate_operation_log(house.db, operation.id)
    return _file(f"lablink-operation-{operation.id}.log", _write(lines))


def _file(name: str, content: AsyncIterator[str]) -> StreamingResponse:
    safe = re.sub(r"[^A-Za-z0-9.-]", "_", name)
    headers = {"Content-Disposition": f'attachment; filename="{safe}"', "Cache-Control": "no-store"}
    return StreamingResponse(content, media_type="text/plain; charset=utf-8", headers=headers)


async def _write_vm_log(db: Database, vm: VmView) -> AsyncIterator[str]:
    yield "".join(map(_text, await list_terraform_lines(db, vm.id, vm.hostname)))
    async for text in _write(iterate_vm_log(db, vm.id, LogCursor())):
        yield text


async def _write(portions: AsyncIterator[list[LogLineView]]) -> AsyncIterator[str]:
    async for lines in portions:
        yield "".join(map(_text, lines))


def _text(line: LogLineView) -> str:
    at = line.at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    level = "" if line.level == "gap" else line.level.upper()
    return f"{at} {level:<5} {line.source} {line.message}\n"
