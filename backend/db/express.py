"""The express lane: a few connections for statements that are a transaction by themselves, past SQLAlchemy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus

Connection = psycopg.AsyncConnection[Any]
BROKEN = (psycopg.OperationalError, psycopg.InterfaceError)


def is_at_rest(connection: Connection) -> bool:
    """Whether a connection is of use to the next one: not dead, and not left in the middle of something.

    A task that is cancelled while ``executemany`` begins leaves it in pipeline mode (psycopg 3.3.9), where each later
    statement finds no rows.
    """
    info = connection.info
    return info.transaction_status is TransactionStatus.IDLE and info.pipeline_status is PipelineStatus.OFF


class ExpressLane:
    """Keeps up to ``size`` connections, made when first needed. psycopg's own pool would let callers wait, not fail."""

    def __init__(self, conninfo: str, *, size: int, wait_s: float, options: dict[str, Any]) -> None:
        self._conninfo = conninfo
        self._options = options
        self._wait_s = wait_s
        self._turns = asyncio.Semaphore(size)
        self._idle: list[Connection] = []

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection for the block alone.

        Raises:
            TimeoutError: all are in use for too long.
            psycopg.OperationalError: there is none to be had.
        """
        async with asyncio.timeout(self._wait_s):
            await self._turns.acquire()
        try:
            connection = self._idle.pop() if self._idle else await self._connect()
            try:
                yield connection
            except BROKEN:
                # The others have most likely died with this one.
                await self.close()
                raise
            finally:
                if is_at_rest(connection):
                    self._idle.append(connection)
                else:
                    await connection.close()
        finally:
            self._turns.release()

    async def close(self) -> None:
        """Closes those that nobody uses now."""
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.close()

    async def _connect(self) -> Connection:
        # The few statements that come here come again and again: parsed and planned once for each connection. That may
        # be while a table is empty; it is read by its indices all the same, for it will not stay so.
        settings = f"{self._options['options']} -c plan_cache_mode=force_generic_plan -c enable_seqscan=off"
        options = {**self._options, "options": settings}
        return await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True, prepare_threshold=0, **options)
