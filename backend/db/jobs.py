"""Deferring jobs: a job row is inserted in the caller's own transaction, so both are kept or neither is."""

from __future__ import annotations

from typing import Any, Protocol

from procrastinate import App, PsycopgConnector
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import driver_connection

RUN_OPERATION = "run_operation"
RUN_POWER_ACTION = "run_power_action"

# Only builds INSERT statements here: it is never opened, so it holds no connection of its own.
_deferrer = App(connector=PsycopgConnector())


class _Deferrable(Protocol):
    async def defer_async(self, **kwargs: Any) -> int: ...


async def defer(session: AsyncSession, task: str, *, lock: str, **arguments: Any) -> int:
    """Queues ``task`` in the session's transaction; jobs of one ``lock`` never run together. Returns the job's id."""
    connection = await driver_connection(session)
    deferrer: _Deferrable = _deferrer.configure_task(task, lock=lock, connection=connection)
    return await deferrer.defer_async(**arguments)
