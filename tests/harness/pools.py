"""Pools for tests, made with the services on a server's own database (the console has a form for it)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text

from backend.db.embedded import EmbeddedPostgres
from backend.db.engine import Database
from backend.models.base import quoted
from backend.services.actor import Actor
from backend.services.pools import PoolSpec, ensure_pool
from backend.states import OPEN_CLAIM, OPEN_COMMAND
from tests.harness.server import Server

_JOINED = "(SELECT id FROM vms WHERE origin = 'joined')"
_FORGETTING = (
    text(
        "UPDATE vms SET status = 'destroyed', status_changed_at = now(), email = NULL, crd_command = NULL"
        " WHERE status <> 'destroyed' AND origin = 'joined'"
    ),
    text(
        "UPDATE claims SET status = 'released', status_changed_at = now(), ended_at = now()"
        f" WHERE status IN ({quoted(OPEN_CLAIM)}) AND (vm_id IS NULL OR vm_id IN {_JOINED})"
    ),
    text(
        "UPDATE commands SET status = 'expired', finished_at = now()"
        f" WHERE status IN ({quoted(OPEN_COMMAND)}) AND vm_id IN {_JOINED}"
    ),
)


@asynccontextmanager
async def database_of(server: Server) -> AsyncIterator[Database]:
    """The database of a running server with an embedded Postgres."""
    db = Database(await EmbeddedPostgres(server.home).start())
    yield db
    await db.close()


async def forget_joined(server: Server) -> None:
    """Takes away the machines that joined, and who waits: to look after what nobody plays any more is work for ever."""
    async with database_of(server) as db, db.transaction() as session:
        for statement in _FORGETTING:
            await session.execute(statement)


async def make_pool(server: Server, name: str, **figures: object) -> str:
    """Ensures a pool; returns its name."""
    async with database_of(server) as db:
        await ensure_pool(db, name, PoolSpec(**figures), actor=Actor.admin("test"))  # type: ignore[arg-type]
    return name
