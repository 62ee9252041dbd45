"""Logs that agents ship: kept by VM, bounded by sweeps."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, insert, select

from backend.db.engine import Database
from backend.models import VmLog
from backend.redaction import redact
from backend.services.views import LogLineView

MAX_LINE = 4_000


async def record_vm_log(db: Database, vm_id: int, source: str, lines: Sequence[str]) -> None:
    """Appends lines to a VM's log: secrets struck out, cut at 4,000 characters, without NUL (Postgres has none)."""
    if not lines:
        return
    at = db.now()
    rows = [{"vm_id": vm_id, "at": at, "source": source, "line": _kept(line)} for line in lines]
    async with db.transaction() as session:
        await session.execute(insert(VmLog), rows)
        # No trigger on this table: one notice a batch says which VM has news, and only its own pages care.
        await session.execute(select(func.pg_notify("lablink", f'{{"table": "vm_logs", "ids": [{vm_id}]}}')))


def _kept(line: str) -> str:
    # Cut last: half a secret would no longer look like one.
    return redact(line.replace("\x00", ""))[:MAX_LINE]


async def list_vm_log(db: Database, vm_id: int, *, after_id: int = 0, limit: int = 1_000) -> list[LogLineView]:
    """The last ``limit`` lines after ``after_id``, oldest first."""
    query = select(VmLog).where(VmLog.vm_id == vm_id, VmLog.id > after_id).order_by(VmLog.id.desc()).limit(limit)
    async with db.transaction() as session:
        rows = list(await session.scalars(query))
    return [LogLineView(row.id, row.at, "info", row.source, row.line) for row in reversed(rows)]
