"""Pools for tests, made with the services on a server's own database (the console has a form for it)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from backend.db.embedded import EmbeddedPostgres
from backend.db.engine import Database
from backend.services.actor import Actor
from backend.services.pools import PoolSpec, ensure_pool
from tests.harness.server import Server


@asynccontextmanager
async def database_of(server: Server) -> AsyncIterator[Database]:
    """The database of a running server with an embedded Postgres."""
    db = Database(await EmbeddedPostgres(server.home).start())
    yield db
    await db.close()


async def make_pool(server: Server, name: str, **figures: object) -> str:
    """Ensures a pool; returns its name."""
    async with database_of(server) as db:
        await ensure_pool(db, name, PoolSpec(**figures), actor=Actor.admin("test"))  # type: ignore[arg-type]
    return name
