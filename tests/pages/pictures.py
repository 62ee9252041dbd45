"""Pictures of every page in every state, to be looked at: ``python -m tests.pages.pictures [WORD …]``.

With the one word ``docs``: the pictures of the README, into ``docs/``.

They go to ``tests/artifacts/``, light and dark, wide and phone; words choose those whose
name holds one of them, such as ``seat-active`` or ``machines-phone-dark``.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Browser, async_playwright

from backend.db.embedded import EmbeddedPostgres
from backend.db.engine import Database
from backend.db.migrate import migrate
from backend.services.pools import set_pool_open
from tests.conftest import CHROMIUM, CHROMIUM_FLAGS
from tests.harness.local_aws import CREDENTIALS
from tests.harness.pages import Visitor, visit
from tests.harness.server import Server
from tests.pages.desks import KEY, furnish_desks
from tests.pages.states import BARE, CLOSED, CROWDED, FURNISHED, SIZES, THEMES, State, become, bring
from tests.pages.worlds import KIM, SETTINGS, World, crowd, furnish

ARTIFACTS = Path(__file__).parents[1] / "artifacts"
DOCS = Path(__file__).parents[2] / "docs"
# The pictures of the README: what, in which window, in which theme.
SHOWN = {
    "console": ("machines", {"width": 1320, "height": 880}, "light"),
    "console-dark": ("machines", {"width": 1320, "height": 880}, "dark"),
    "seat-phone": ("seat-active", {"width": 390, "height": 600}, "light"),
}


async def main(words: Sequence[str]) -> None:
    """Takes them all, or those whose name holds a word."""
    ARTIFACTS.mkdir(exist_ok=True)
    async with async_playwright() as playwright, _postgres() as url:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(CHROMIUM_FLAGS))
        bare = await _database(url, "bare")
        async with _serve(bare) as server:
            await _take(browser, server, BARE, words)
            db = Database(bare)
            await set_pool_open(db, "default", is_open=False, actor=KIM)
            await db.close()
            await _take(browser, server, CLOSED, words)
        furnished = await _database(url, "furnished")
        world = await furnish(furnished)
        await furnish_desks(world)
        async with _serve(furnished) as server:
            if list(words) == ["docs"]:
                await _take_shown(browser, server, world)
                return
            await _take(browser, server, FURNISHED, words, world)
            await crowd(furnished)
            await _take(browser, server, CROWDED, words, world)


async def _take(
    browser: Browser, server: Server, states: Sequence[State], words: Sequence[str], world: World | None = None
) -> None:
    for size, theme in itertools.product(SIZES, THEMES):
        names = {each: f"{each.name}-{size}-{theme}" for each in states}
        people: dict[str, Visitor] = {}
        for state, name in names.items():
            if words and not any(word in name for word in words):
                continue
            whose = "admin" if state.is_admin else state.seat
            if whose not in people:
                people[whose] = await visit(browser, server, viewport=SIZES[size], color_scheme=theme)
                await become(people[whose], state, world)
            await _shoot(people[whose], state, world, f"{name}.png")
        for person in people.values():
            await person.context.close()


async def _take_shown(browser: Browser, server: Server, world: World) -> None:
    DOCS.mkdir(exist_ok=True)
    for name, (wanted, viewport, theme) in SHOWN.items():
        state = next(state for state in FURNISHED if state.name == wanted)
        person = await visit(browser, server, viewport=viewport, color_scheme=theme, device_scale_factor=1.4)
        await become(person, state, world)
        await bring(person.page, state, server.url, world)
        await person.page.wait_for_timeout(400)
        await person.page.screenshot(path=DOCS / f"{name}.png")
        await person.context.close()


async def _shoot(person: Visitor, state: State, world: World | None, name: str) -> None:
    page = person.page
    await bring(page, state, person.server.url, world)
    # What a page reads after its first picture (charts, logs, costs) has no mark of its own: a picture may wait.
    await page.wait_for_timeout(400)
    await page.screenshot(path=ARTIFACTS / name, full_page=state.is_full)


@asynccontextmanager
async def _postgres() -> AsyncIterator[str]:
    with tempfile.TemporaryDirectory(prefix="pictures") as home:
        embedded = EmbeddedPostgres(Path(home))
        yield await embedded.start()
        await embedded.stop()


async def _database(url: str, name: str) -> str:
    db = Database(url)
    async with db.engine.connect() as connection:
        plain = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await plain.exec_driver_sql(f"CREATE DATABASE {name}")
    await db.close()
    made = url.replace("/postgres?", f"/{name}?", 1)
    await migrate(made)
    return made


@asynccontextmanager
async def _serve(url: str) -> AsyncIterator[Server]:
    with tempfile.TemporaryDirectory(prefix="pictures") as home:
        server = Server(
            Path(home) / "home", *SETTINGS, database_url=url, environment={**CREDENTIALS, "LABLINK_KEYS": KEY}
        )
        try:
            yield await server.start()
        finally:
            await server.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
