"""Fixtures: one Postgres for all, a fresh database or server for each test that wants one, one browser."""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
import uvloop
from playwright.async_api import Browser, async_playwright

from backend.db.embedded import EmbeddedPostgres
from backend.db.engine import Database
from backend.db.migrate import migrate
from backend.errors import Unavailable
from tests.ensure_tools import find_chromium
from tests.harness.pools import forget_joined
from tests.harness.server import Server
from tests.harness.several import Twofold

CHROMIUM_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    # A pulsing dot is painted sixty times a second: half of what the tests' browsers did.
    "--force-prefers-reduced-motion",
)
CHROMIUM = find_chromium()
# With two, a test's server is two servers, one Postgres and HAProxy, where it asks for nothing out of the ordinary.
MakeServer = Twofold if os.environ.get("LABLINK_TEST_SERVERS") == "2" else Server
# The server's own kind of loop for tests as well: a seventh less work.
asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
_numbers = itertools.count(1)
_empty: list[str] = []
# What a database must not have, to be emptied: somebody else in it, something younger than itself, a year's data.
OURS = "lablink-tests"
LEFT = f"""
    SELECT FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND application_name <> '{OURS}'
    UNION ALL
    SELECT FROM pg_class WHERE oid > (SELECT oid FROM pg_database WHERE datname = current_database())
    UNION ALL
    SELECT WHERE pg_database_size(current_database()) > 16_000_000"""
EMPTYING = """
DO $$
DECLARE name regclass;
BEGIN
    -- As a replica does: nothing is checked, nothing is told.
    SET LOCAL session_replication_role = replica;
    FOR name IN SELECT oid FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname <> 'alembic_version'
    LOOP
        EXECUTE format('DELETE FROM %s', name);
    END LOOP;
    PERFORM setval(oid::regclass, 1, false) FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'S';
END $$"""


class Clock:
    """A clock that tests move by hand."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def advance(self, seconds: float) -> None:
        self.ahead += timedelta(seconds=seconds)


@pytest.fixture(scope="session")
async def template_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A migrated database that is copied for each test."""
    embedded = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"))
    url = await embedded.start()
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("CREATE DATABASE template_lablink")
    template = url.replace("/postgres?", "/template_lablink?", 1)
    await migrate(template)
    yield template
    await embedded.stop()


@pytest.fixture
async def database_url(template_url: str) -> AsyncIterator[str]:
    """A migrated database with nothing in it: to empty one costs a twentieth of making one."""
    url = _empty.pop() if _empty else await make_database(template_url)
    yield url
    if await _empty_again(_database_of(url)):
        _empty.append(url)
    else:
        await _database_of(url).close()


async def make_database(template_url: str) -> str:
    """A fresh, migrated database beside all others; returns its URL."""
    name = f"test_{next(_numbers)}"
    admin = template_url.replace("/template_lablink?", "/postgres?", 1)
    async with await psycopg.AsyncConnection.connect(admin, autocommit=True) as connection:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE template_lablink")  # type: ignore[arg-type]
    return template_url.replace("/template_lablink?", f"/{name}?", 1)


@functools.cache
def _database_of(url: str) -> Database:
    """Its connections outlive a test: to make them, and to have Postgres learn its tables anew, costs more than most
    tests ask of it.
    """
    return Database(url, name=OURS)


async def _empty_again(database: Database) -> bool:
    """Empties it, unless more than rows was left there: somebody connected, a table, a year of data. Whether it did."""
    try:
        async with asyncio.timeout(5), database.express() as connection:
            if (await connection.execute(LEFT)).rowcount:
                return False
            await connection.execute(EMPTYING)
            return True
    except (TimeoutError, Unavailable, psycopg.Error):
        # What it was left in the middle of ends with its connections.
        return False


@pytest.fixture
def clock() -> Clock:
    """The clock of ``db``."""
    return Clock()


@pytest.fixture
async def db(database_url: str, clock: Clock) -> Database:
    """Services' way to a fresh database."""
    database = _database_of(database_url)
    database.now = clock
    return database


@pytest.fixture
async def start_server(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Server]]]:
    """Starts servers, each with a data directory of its own (or the one given as ``home``)."""
    servers: list[Server] = []

    async def start(*settings: str, **options: object) -> Server:
        make = Server if options else MakeServer
        server = make(tmp_path / f"home{len(servers)}", *settings, **options)  # type: ignore[arg-type]
        servers.append(server)
        return await server.start()

    yield start
    for server in servers:
        await server.close()


@pytest.fixture(scope="session")
async def one_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """The one of ``shared_server``."""
    server = MakeServer(tmp_path_factory.mktemp("shared") / "home", "server.body_limit_bytes=1000000")
    await server.start()
    yield server
    await server.close()


@pytest.fixture(scope="module")
async def shared_server(one_server: Server) -> AsyncIterator[Server]:
    """One server for tests that leave no mark on each other; each makes a pool of its own."""
    yield one_server
    await forget_joined(one_server)


@pytest.fixture
async def browser(chromium: Browser) -> AsyncIterator[Browser]:
    """The browser, whose contexts end with the test: a page left open goes on drawing, and reconnecting, for ever."""
    before = list(chromium.contexts)
    yield chromium
    for context in chromium.contexts:
        if context not in before:
            await context.close()


@pytest.fixture(scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """One Chromium for all."""
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(CHROMIUM_FLAGS))
        yield launched
        await launched.close()
