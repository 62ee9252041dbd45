"""Two servers for the tests of pages: one where nothing happened yet, one with a workshop in full swing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import psycopg
import pytest
from playwright.async_api import Browser

from tests.harness.local_aws import CREDENTIALS
from tests.harness.pages import Visitor, visit
from tests.harness.server import Server
from tests.pages.desks import KEY, furnish_desks
from tests.pages.worlds import SETTINGS, World, furnish


@dataclass
class Place:
    """A server, its database, and (where it is furnished) what stands in it."""

    server: Server
    database_url: str
    world: World | None = None


@pytest.fixture(scope="package")
async def bare(template_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """A server where nothing happened yet."""
    url = await copy_database(template_url, "pages_bare")
    server = Server(tmp_path_factory.mktemp("bare") / "home", *SETTINGS, database_url=url, environment=CREDENTIALS)
    await server.start()
    yield Place(server, url)
    await server.close()


@pytest.fixture(scope="package")
async def furnished(template_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """A server of a workshop in full swing."""
    url = await copy_database(template_url, "pages_furnished")
    world = await furnish(url)
    await furnish_desks(world)
    home = tmp_path_factory.mktemp("furnished") / "home"
    server = Server(home, *SETTINGS, database_url=url, environment={**CREDENTIALS, "LABLINK_KEYS": KEY})
    await server.start()
    yield Place(server, url, world)
    await server.close()
    await world.db.close()


@pytest.fixture(scope="package")
async def admin(chromium: Browser, furnished: Place) -> AsyncIterator[Visitor]:
    """An admin at the furnished server; pages are opened one after the other in one tab."""
    person = await visit(chromium, furnished.server, reduced_motion="reduce")
    yield await person.sign_in()
    await person.context.close()


async def copy_database(template_url: str, name: str) -> str:
    """A fresh, migrated database of this name; returns its URL."""
    async with await connect(template_url, "postgres") as connection:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE template_lablink")  # type: ignore[arg-type]
    return template_url.replace("/template_lablink?", f"/{name}?", 1)


async def connect(url: str, database: str = "") -> psycopg.AsyncConnection:
    """A connection beside the server's own, by default to its database."""
    name = url.rpartition("/")[2] if "?" not in url else url.partition("?")[0].rpartition("/")[2]
    chosen = url.replace(f"/{name}?", f"/{database}?", 1) if database else url
    return await psycopg.AsyncConnection.connect(chosen, autocommit=True)
