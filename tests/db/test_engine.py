from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.embedded import SOCKET, EmbeddedPostgres
from backend.db.engine import ANSWERS_AT_ONCE, Database, plain_url
from backend.db.jobs import RUN_OPERATION, defer
from backend.db.migrate import migrate
from backend.errors import Unavailable
from backend.services.operations import request_launch
from backend.services.pools import PoolSpec, ensure_pool
from tests.harness.server import LABLINK
from tests.harness.waiting import until
from tests.harness.wire import Wire
from tests.services.worlds import ADMIN

KILL_MYSELF = text("SELECT pg_terminate_backend(pg_backend_pid())")


@dataclass
class External:
    """A Postgres that is not ours: known by its URL alone."""

    home: Path
    postgres: EmbeddedPostgres
    url: str


@pytest.fixture(scope="module")
async def external(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[External]:
    home = tmp_path_factory.mktemp("external")
    postgres = EmbeddedPostgres(home)
    yield External(home, postgres, await postgres.start())
    await postgres.stop()


async def answer(db: Database) -> object:
    async with db.transaction() as session:
        return await session.scalar(text("SELECT 42"))


async def test_an_external_postgres_is_used_by_its_url(external: External) -> None:
    url = external.url.replace("postgresql://", "postgres://", 1)
    await migrate(url)
    db = Database(url)
    await ensure_pool(db, "lab", PoolSpec(), actor=ADMIN)
    assert (await request_launch(db, "lab", 2, actor=ADMIN)).hostnames == ("lab-001", "lab-002")
    await db.close()


async def test_a_dead_postgres_is_unavailable_until_it_is_back(external: External) -> None:
    db = Database(external.url)
    assert await answer(db) == 42
    await external.postgres.stop()
    for _ in range(2):
        with pytest.raises(Unavailable) as caught:
            await answer(db)
        assert caught.value.retry_after_s
    assert await external.postgres.start() == external.url
    # Pooled connections of its former life are given up with the first that fails.
    results = await asyncio.gather(*(answer(db) for _ in range(8)), return_exceptions=True)
    assert all(result == 42 or isinstance(result, Unavailable) for result in results)
    assert await answer(db) == 42
    await db.close()


async def test_migrating_by_hand_leaves_the_postgres_of_a_running_server_alone(external: External) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LABLINK_")}
    process = await asyncio.create_subprocess_exec(
        LABLINK, "migrate", env={**environment, "LABLINK_HOME": str(external.home)}
    )
    assert await process.wait() == 0
    assert external.postgres.is_running()
    db = Database(external.url)
    assert await answer(db) == 42
    await db.close()


async def lose_the_connection(db: Database) -> None:
    async with db.transaction() as session:
        await session.execute(KILL_MYSELF)


async def lose_it_before_a_job_is_deferred(db: Database) -> None:
    async with db.transaction() as session:
        await end_connection_of(session, db)
        await defer(session, RUN_OPERATION, lock="pool:1", operation_id=1)


async def lose_it_before_the_commit(db: Database) -> None:
    async with db.transaction() as session:
        await end_connection_of(session, db)


async def end_connection_of(session: AsyncSession, db: Database) -> None:
    pid = await session.scalar(text("SELECT pg_backend_pid()"))
    async with db.transaction() as other:
        await other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})


@pytest.mark.parametrize("lose", [lose_the_connection, lose_it_before_a_job_is_deferred, lose_it_before_the_commit])
async def test_a_connection_lost_in_a_transaction_is_unavailable(
    db: Database, lose: Callable[[Database], Awaitable[None]]
) -> None:
    with pytest.raises(Unavailable):
        await lose(db)
    assert await answer(db) == 42


@pytest.mark.parametrize("is_open", [False, True], ids=["in turn", "open"])
async def test_of_answers_that_come_together_a_few_go_on_in_each_round_of_the_loop(
    db: Database, database_url: str, monkeypatch: pytest.MonkeyPatch, is_open: bool
) -> None:
    monkeypatch.setattr(db.answers, "is_open", is_open)
    rounds: list[int] = [0]
    gone_on: list[int] = []

    async def count_rounds() -> None:
        while True:
            await asyncio.sleep(0)
            rounds[0] += 1

    async def wait_for_all() -> None:
        async with db.transaction() as session:
            await session.execute(text("SELECT pg_advisory_xact_lock_shared(1)"))
            gone_on.append(rounds[0])

    with psycopg.connect(database_url, autocommit=True) as beside:
        beside.execute("SELECT pg_advisory_lock(1)")
        crowd = asyncio.gather(*(wait_for_all() for _ in range(8)))
        await until(lambda: count(beside, "wait_event_type = 'Lock'") == 8)
        bystander = asyncio.create_task(count_rounds())
        beside.execute("SELECT pg_advisory_unlock(1)")
        # Holds the loop until all answers are there.
        while count(beside, "state = 'active'"):
            pass
        await crowd
        bystander.cancel()
    assert len(gone_on) == 8
    assert (max(map(gone_on.count, gone_on)) > ANSWERS_AT_ONCE) == is_open


def count(beside: psycopg.Connection, what: str) -> int:
    """How many others who use this database are so."""
    others = "datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
    return beside.execute(f"SELECT FROM pg_stat_activity WHERE {others} AND {what}").rowcount  # type: ignore[arg-type]


async def test_more_work_than_connections_waits_and_then_is_unavailable(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = Database(database_url, pool_size=2)
    monkeypatch.setattr(db.engine.pool, "_timeout", 0.05)
    async with db.transaction() as first, db.transaction() as second:
        await first.execute(text("SELECT 1"))
        await second.execute(text("SELECT 1"))
        with pytest.raises(Unavailable):
            await answer(db)
    assert await answer(db) == 42
    await db.close()


async def test_what_fails_in_a_transaction_leaves_nothing_behind(db: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        async with db.transaction() as session:
            await session.execute(text("CREATE TABLE half (id int)"))
            raise ZeroDivisionError
    async with db.transaction() as session:
        assert await session.scalar(text("SELECT to_regclass('half')")) is None


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_a_url_is_taken_in_every_common_spelling(scheme: str) -> None:
    assert plain_url(f"{scheme}://user@host:5432/name?sslmode=require&keepalives_idle=9") == (
        "postgresql://user@host:5432/name?sslmode=require&keepalives_idle=9"
        "&tcp_user_timeout=15000&keepalives_interval=5&keepalives_count=2"
    )


@pytest.mark.parametrize("moment", ["before_it_is_asked", "while_it_works"])
async def test_a_postgres_whose_host_vanishes_is_unavailable(external: External, moment: str) -> None:
    beside = Database(external.url)
    async with Wire(external.home / "postgres" / SOCKET) as wire:
        patience = "tcp_user_timeout=1000&keepalives_idle=1&keepalives_interval=1&keepalives_count=1"
        db = Database(f"postgresql://postgres@127.0.0.1:{wire.port}/postgres?{patience}")
        assert await answer(db) == 42
        if moment == "before_it_is_asked":
            wire.vanish()
            with pytest.raises(Unavailable):
                await answer(db)
        else:
            asked = asyncio.create_task(sleep_on(db))
            await until(lambda: is_asleep(beside))
            wire.vanish()
            with pytest.raises(Unavailable):
                await asked
        # The address leads somewhere again: as after a change to the standby.
        assert await answer(db) == 42
        await db.close()
    await beside.close()


async def sleep_on(db: Database) -> None:
    async with db.transaction() as session:
        await session.execute(text("SELECT pg_sleep(25)"))


async def is_asleep(db: Database) -> bool:
    async with db.transaction() as session:
        query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        return bool(await session.scalar(text(query)))
