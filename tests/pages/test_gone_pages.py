"""A page that has gone is given back at once: what waits for a collection of garbage makes it last, for everybody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from lablink_ui.swarm.consoles import sign_in
from lablink_ui.swarm.http import Client
from lablink_ui.swarm.page import Page
from lablink_ui.swarm.target import Target, find_target
from tests.harness.server import PASSWORD, Server
from tests.harness.uncollected_server import GIVING_UP, PATH
from tests.harness.waiting import until
from tests.pages.desks import KEY
from tests.pages.states import FURNISHED, State
from tests.pages.worlds import SETTINGS, World

# No pages of ours: NiceGUI's own for what is not there.
OF_NOBODY = ("/nowhere", "/seat/open/spent")


@pytest.fixture
async def server(furnished, tmp_path) -> AsyncIterator[Server]:
    server = Server(
        # States of pools stand there, and all servers of one database share them.
        furnished.server.home,
        *SETTINGS,
        "server.reconnect_timeout_s=3",
        "server.metrics=true",
        database_url=furnished.database_url,
        environment={"LABLINK_KEYS": KEY},
        module="tests.harness.uncollected_server",
    )
    server.log = tmp_path / "server.log"
    await server.start()
    yield server
    await server.close()


async def test_a_page_that_has_gone_leaves_nothing_that_waits_for_a_collection(furnished, server) -> None:
    target = find_target(server.url)
    admin = Client(target)
    await sign_in(admin, PASSWORD)
    async with AsyncExitStack() as stack:
        seen = {(state.path, state.seat): state for state in FURNISHED if state.path not in OF_NOBODY}
        await asyncio.gather(*(look(stack, target, admin, furnished.world, state) for state in seen.values()))
        assert (await ask(server))["pages"] >= len(seen)
    await until(lambda: have_fallen_apart(server), within_s=40, what="the pages have fallen apart")
    admin.close()


async def test_a_page_whose_browser_never_came_is_told_nothing_once_it_is_given_up(server) -> None:
    for path in ("/login", "/"):
        assert (await server.api.get(path)).status_code == 200
    assert (await ask(server))["pages"] == 2
    await server.api.get(GIVING_UP)
    assert (await ask(server))["pages"] == 0
    assert (await server.figures())["lablink_pages"] == 0
    assert "Traceback" not in server.log.read_text()


async def look(stack: AsyncExitStack, target: Target, admin: Client, world: World, state: State) -> None:
    """Opens a page as whoever it is for; it stays open until the stack is left."""
    client = Client(target)
    stack.callback(client.close)
    if state.is_admin:
        client.cookies |= admin.cookies
    elif state.seat:
        client.cookies["lablink-browser"] = world.seats[state.seat]
    page = Page(client, on_problem=lambda _: None)
    stack.push_async_callback(page.close)
    await page.open(state.path.format(**world.operations, **world.words))
    await page.until(lambda: page.is_connected, within_s=30, what=f"{state.path}, connected")


async def have_fallen_apart(server: Server) -> bool:
    said = await ask(server)
    # That of the sign-in, which no browser ever connected to, stays for a minute.
    assert said["pages"] <= 1 and said["left"] == {} and said["tabs"] == 0, said
    return True


async def ask(server: Server) -> dict:
    return (await server.api.get(PATH)).json()
