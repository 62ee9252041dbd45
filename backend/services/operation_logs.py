"""What Terraform said in an operation, as people read it."""

from __future__ import annotations

from collections.abc import AsyncIterator

from sqlalchemy import select

from backend.db.engine import Database
from backend.models import OperationLog, OperationVm
from backend.services.views import LogLineView


async def list_operation_log(
    db: Database, operation_id: int, *, after_id: int = 0, limit: int = 5_000
) -> list[LogLineView]:
    """The last ``limit`` lines after ``after_id``, oldest first."""
    query = (
        select(OperationLog)
        .where(OperationLog.operation_id == operation_id, OperationLog.id > after_id)
        .order_by(OperationLog.id.desc())
        .limit(limit)
    )
    async with db.transaction() as session:
        rows = list(await session.scalars(query))
    return [LogLineView(row.id, row.at, row.level, "terraform", row.message) for row in reversed(rows)]


async def iterate_operation_log(
    db: Database, operation_id: int, *, portion: int = 1_000
) -> AsyncIterator[list[LogLineView]]:
    """All of an operation's log in portions, oldest first, each read by itself."""
    last_id = 0
    query = select(OperationLog).where(OperationLog.operation_id == operation_id).order_by(OperationLog.id)
    while True:
        async with db.transaction() as session:
            rows = list(await session.scalars(query.where(OperationLog.id > last_id).limit(portion)))
        if not rows:
            return
        last_id = rows[-1].id
        yield [LogLineView(row.id, row.at, row.level, "terraform", row.message) for row in rows]


async def list_terraform_lines(
    db: Database, vm_id: int, hostname: str, *, after_id: int = 0, limit: int = 2_000
) -> list[LogLineView]:
    """What Terraform said about one VM, in all of its operations: the last ``limit`` lines after ``after_id``."""
    query = (
        select(OperationLog)
        .join(OperationVm, OperationVm.operation_id == OperationLog.operation_id)
        .where(OperationVm.vm_id == vm_id, OperationLog.id > after_id)
        .where(OperationLog.message.contains(f'["{hostname}"]', autoescape=True))
        .order_by(OperationLog.id.desc())
        .limit(limit)
    )
    async with db.transaction() as session:
        rows = list(await session.scalars(query))
    return [LogLineView(row.id, row.at, row.level, "terraform", row.message) for row in reversed(rows)]
