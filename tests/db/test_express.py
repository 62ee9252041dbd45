from __future__ import annotations

import asyncio

import psycopg
import pytest

from backend.db.engine import EXPRESS_SIZE, Database
from backend.errors import Unavailable

PID = b"SELECT pg_backend_pid()"


async def ask_pid(db: Database) -> int:
    async with db.express() as connection:
        row = await (await connection.execute(PID)).fetchone()
        assert row
        return row[0]


async def test_one_connection_serves_one_after_the_other_and_a_crowd_waits_its_turn(db: Database) -> None:
    assert len({await ask_pid(db) for _ in range(5)}) == 1
    assert len(set(await asyncio.gather(*(ask_pid(db) for _ in range(50))))) <= EXPRESS_SIZE


async def test_after_connections_were_cut_one_is_told_and_the_next_is_served(db: Database, database_url: str) -> None:
    pids = set(await asyncio.gather(*(ask_pid(db) for _ in range(50))))
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as other:
        await other.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s) AS pid", [list(pids)])
    with pytest.raises(Unavailable):
        await ask_pid(db)
    assert await ask_pid(db) not in pids


async def test_what_was_cancelled_in_the_middle_is_not_handed_on(db: Database) -> None:
    began = asyncio.Event()

    async def sleep() -> None:
        async with db.express() as connection:
            began.set()
            await connection.execute(b"SELECT pg_sleep(60)")

    asleep = asyncio.create_task(sleep())
    await began.wait()
    await asyncio.sleep(0)
    asleep.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asleep
    async with asyncio.timeout(10):
        # Closed, or told to stop and well again: either way it answers what is asked now.
        assert await ask_pid(db) > 0


async def test_a_statement_of_its_own_is_kept_at_once(db: Database, database_url: str) -> None:
    async with db.express() as connection:
        await connection.execute(b"CREATE TABLE kept (id int)")
        async with await psycopg.AsyncConnection.connect(database_url) as other:
            assert await (await other.execute("SELECT to_regclass('kept') IS NOT NULL")).fetchone() == (True,)
