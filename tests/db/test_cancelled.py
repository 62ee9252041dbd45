"""What is cancelled in the middle of a statement: its connection is of no harm to the next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from backend.db.engine import Database

ROWS = [{"n": n} for n in range(20)]


@pytest.fixture
async def narrow(database_url: str) -> AsyncIterator[Database]:
    """A database with one connection to give: who comes next has the same."""
    database = Database(database_url, pool_size=1)
    async with database.transaction() as session:
        await session.execute(text("CREATE TABLE numbers (n int)"))
    yield database
    await database.close()


async def test_a_connection_that_was_cancelled_at_any_step_does_not_spoil_the_next_statement(
    narrow: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a busy machine, where psycopg lets the others have a turn at more of its steps.
    monkeypatch.setattr("psycopg.waiting.MAX_BUSY_TIME", 0)

    async def write() -> None:
        async with narrow.transaction() as session:
            await session.execute(text("INSERT INTO numbers VALUES (:n)"), ROWS)

    cancelled = 0
    for steps in range(60):
        writing = asyncio.create_task(write())
        for _ in range(steps):
            await asyncio.sleep(0)
        writing.cancel()
        cancelled += isinstance((await asyncio.gather(writing, return_exceptions=True))[0], asyncio.CancelledError)
        async with narrow.transaction() as session:
            assert (await session.execute(text("SELECT :n + 1"), {"n": steps})).scalar_one() == steps + 1
    assert cancelled > 10
