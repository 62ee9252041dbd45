"""One server with a few machines for all tests of terminals; each test has seats of its own and gives them back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from playwright.async_api import Browser

from tests.harness.pages import Visitor, visit
from tests.harness.screens import LARGE
from tests.harness.seats import Seat
from tests.harness.server import Server
from tests.harness.wire import Wire

MACHINES = 3


@pytest.fixture(scope="session")
async def lab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """The server, with its machines free."""
    server = await Server(tmp_path_factory.mktemp("lab") / "home").start()
    _, names = await server.launch(MACHINES)
    await server.until_status(names, "available")
    yield server
    await server.close()


@pytest.fixture(autouse=True)
async def free_again(lab: Server) -> AsyncIterator[None]:
    """Whatever a test did, the next one finds every machine free."""
    yield
    if lab.process is not None and lab.process.poll() is not None:
        await lab.start()
    await give_back(lab)


@pytest.fixture
async def take_seat(lab: Server) -> AsyncIterator[Callable[..., Awaitable[Seat]]]:
    """Claims seats, without a browser."""
    async with AsyncExitStack() as stack:

        async def take(email: str = "ada@lab.org") -> Seat:
            return await Seat(lab, await stack.enter_async_context(lab.client())).claim(email)

        yield take


@pytest.fixture
async def arrive(browser: Browser) -> AsyncIterator[Callable[..., Awaitable[Visitor]]]:
    """Brings people with browsers of their own, on a large screen."""
    async with AsyncExitStack() as stack:

        async def come(server: Server | Wire, **options: object) -> Visitor:
            person = await visit(browser, server, **{"viewport": LARGE, **options})  # type: ignore[arg-type]
            stack.push_async_callback(person.context.close)
            return person

        yield come


async def give_back(lab: Server) -> None:
    """Takes every seat back, as an organiser; each machine is cleaned and free at the end."""
    from backend.services.actor import Actor
    from backend.services.claims import release_vms
    from tests.harness.pools import database_of

    vms = await lab.list_vms()
    in_use = [name for name, vm in vms.items() if vm["status"] == "in-use"]
    if in_use:
        async with database_of(lab) as db:
            await release_vms(db, in_use, actor=Actor.admin("test"))
    await lab.until_status(list(vms), "available")
