"""Each page when there is nothing yet, before it knows anything, with 500 machines, and when something is away."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Browser, Page, expect

from backend.db.engine import Database
from backend.services.pools import set_pool_open
from tests.harness.local_aws import CREDENTIALS
from tests.harness.pages import Visitor, visit
from tests.harness.server import Server, gather_all
from tests.harness.waiting import until
from tests.pages.conftest import Place, connect, copy_database
from tests.pages.worlds import KIM, SETTINGS, crowd

CONSOLE = (
    "/admin",
    "/admin/create",
    "/admin/instances",
    "/admin/instances/genomics-001",
    "/admin/operations",
    "/admin/operations/3",
    "/admin/pools",
    "/admin/pools/genomics",
    "/admin/events",
)
PUBLIC = ("/", "/join/genomics", "/join/nowhere", "/seat", "/login")
# Of each frame, a page with a table, one of a single thing and one with a form; all of them are looked at in the soak.
FEW = ("/admin", "/admin/instances", "/admin/operations/3", "/admin/pools/genomics", "/join/genomics", "/seat")
ALL = pytest.param((*CONSOLE, *PUBLIC), marks=pytest.mark.long)
MACHINES = 500


@pytest.fixture(scope="module")
async def newcomer(chromium: Browser, bare: Place) -> AsyncIterator[Visitor]:
    """An admin at the server where nothing happened yet."""
    person = await visit(chromium, bare.server, reduced_motion="reduce")
    yield await person.sign_in()
    await person.context.close()


@pytest.fixture(scope="module")
async def crowded(template_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """A server with 500 machines, every fifth in use."""
    url = await copy_database(template_url, "pages_crowded")
    db = await crowd(url, MACHINES)
    await db.close()
    server = Server(tmp_path_factory.mktemp("crowded") / "home", *SETTINGS, database_url=url, environment=CREDENTIALS)
    yield await server.start()
    await server.close()


@pytest.mark.parametrize(
    ("path", "said", "leads_to"),
    [
        ("/admin", "there are no machines", "/admin/create"),
        ("/admin/instances", "No machines yet", "/admin/create"),
        ("/admin/operations", "No operations yet", "/admin/create"),
        ("/admin/instances/nowhere", "There is no machine named 'nowhere'", "/admin/instances"),
        ("/admin/operations/7", "There is no operation 7", "/admin/operations"),
        ("/admin/pools/nowhere", "There is no pool named 'nowhere'", "/admin/pools"),
        ("/join/nowhere", "No such workshop", "/"),
        ("/seat", "No seat here yet", "/"),
    ],
)
async def test_an_empty_page_says_so_and_names_the_next_step(
    newcomer: Visitor, path: str, said: str, leads_to: str
) -> None:
    page = await newcomer.go(path)
    await expect(page.get_by_text(said, exact=False).first).to_be_visible()
    await expect(page.locator(f'.page a[href="{leads_to}"], .panel a[href="{leads_to}"]').first).to_be_visible()


async def test_a_table_of_events_without_events_says_so(newcomer: Visitor) -> None:
    page = await newcomer.go("/admin/events")
    await page.get_by_test_id("events-search").fill("nobody ever did this")
    await expect(page.get_by_text("Nothing matches")).to_be_visible()
    await page.get_by_role("button", name="Show all").click()
    await expect(page.get_by_text("Pool default was made")).to_be_visible()


async def test_without_an_open_pool_a_launch_leads_to_the_pools(bare: Place, newcomer: Visitor) -> None:
    async with database(bare) as db:
        await set_pool_open(db, "default", is_open=False, actor=KIM)
        page = await newcomer.go("/admin/create")
        await expect(page.get_by_text("No open pool")).to_be_visible()
        await expect(page.get_by_role("link", name="Go to the pools")).to_be_visible()
        # The page of a closed workshop is no dead end: it opens by itself.
        await newcomer.go("/join/default")
        await expect(page.get_by_text("This workshop is closed")).to_be_visible()
        await set_pool_open(db, "default", is_open=True, actor=KIM)
        await expect(page.get_by_test_id("claim-email")).to_be_visible()


async def test_before_a_page_knows_anything_it_shows_a_skeleton(newcomer: Visitor) -> None:
    async def look(path: str) -> None:
        page = await newcomer.context.new_page()
        # The page's socket never comes up.
        await page.route("**/_nicegui_ws/**", lambda route: route.abort())
        await page.route_web_socket("**/_nicegui_ws/**", lambda socket: socket.close())
        await page.goto(newcomer.server.url + path)
        await expect(page.locator("[aria-busy=true] .skeleton tr").first).to_be_visible()
        await expect(page.locator(".empty")).to_have_count(0)
        await expect(page.locator(".banner.offline")).to_be_visible()
        await page.close()

    await gather_all(
        *(look(path) for path in ("/admin/instances", "/admin/operations", "/admin/events", "/admin/pools"))
    )


async def test_500_machines_are_all_there_and_are_found_by_words_and_filters(browser: Browser, crowded: Server) -> None:
    person = await (await visit(browser, crowded)).sign_in()
    page = await person.go("/admin/instances")
    rows = page.locator("tbody tr[data-status]")
    await expect(rows).to_have_count(MACHINES)
    await page.get_by_role("searchbox").fill("lecture student042")
    await expect(rows).to_have_count(1)
    await page.get_by_role("searchbox").fill("")
    await page.get_by_role("button", name=re.compile("^In use")).click()
    await expect(rows).to_have_count(MACHINES // 5)
    await page.get_by_label("Select all that are shown").check()
    await expect(page.get_by_test_id("vm-action-release")).to_have_text(f"Release {MACHINES // 5}")
    await page.get_by_test_id("vm-action-destroy").click()
    await expect(page.get_by_role("alertdialog")).to_contain_text("and 92 more")
    await page.keyboard.press("Escape")

    await person.go("/admin")
    await expect(page.get_by_test_id("count-available")).to_have_text(str(MACHINES * 4 // 5))
    await page.get_by_test_id("count-in-use").click()
    await page.wait_for_url("**/admin/instances?status=in-use")
    await expect(rows).to_have_count(MACHINES // 5)
    await person.go("/admin/operations/1")
    await expect(rows).to_have_count(MACHINES)
    await person.go("/admin/events")
    await expect(rows).to_have_count(200)
    # By the keyboard: what a mouse presses moves while the rows above it, out of sight until now, are laid out.
    await page.get_by_role("button", name="Show older").press("Enter")
    await expect(rows).to_have_count(400)
    assert person.errors == []
    await person.context.close()


async def test_of_500_machines_those_out_of_sight_are_not_drawn_and_columns_stand_under_their_headings(
    browser: Browser, crowded: Server
) -> None:
    person = await (await visit(browser, crowded)).sign_in()
    page = await person.go("/admin/instances")
    rows = page.locator("tbody tr[data-status]")
    await expect(rows).to_have_count(MACHINES)
    drawn = "rows => rows.filter(row => row.cells[1].checkVisibility({ contentVisibilityAuto: true })).length"
    await until(
        lambda: rows.evaluate_all(f"rows => 0 < ({drawn})(rows) && ({drawn})(rows) < rows.length / 4"),
        what="few are drawn",
    )
    edges = "cells => cells.map(cell => Math.round(cell.getBoundingClientRect().left))"
    headings = await page.locator("thead th").evaluate_all(edges)
    assert await rows.first.locator("td").evaluate_all(edges) == headings
    # Out of sight, and yet there: a browser's own search finds it, and one can go there.
    await rows.last.scroll_into_view_if_needed()
    assert await rows.last.locator("td").evaluate_all(edges) == headings
    await person.context.close()


@pytest.fixture(scope="module", params=[FEW, ALL], ids=["few", "all"])
async def open_pages(request: pytest.FixtureRequest, chromium: Browser, furnished: Place) -> AsyncIterator[list[Page]]:
    """Pages, each open in a tab of its own."""
    person, guest = await (await visit(chromium, furnished.server)).sign_in(), await visit(chromium, furnished.server)

    async def open_tab(path: str) -> Page:
        page = await (guest if path in PUBLIC else person).context.new_page()
        await page.goto(furnished.server.url + path)
        await page.wait_for_function("window.did_handshake")
        await expect(page.locator("[aria-busy=true]")).to_have_count(0)
        return page

    yield await gather_all(*(open_tab(path) for path in request.param))
    await person.context.close()
    await guest.context.close()


async def test_while_the_database_is_away_every_page_says_so_and_becomes_true_by_itself(
    furnished: Place, open_pages: list[Page]
) -> None:
    late = await open_pages[0].context.new_page()
    name = furnished.database_url.partition("?")[0].rpartition("/")[2]
    async with await connect(furnished.database_url, "postgres") as beside:
        await beside.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        try:
            await beside.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
            for page in open_pages:
                await expect(page.locator(".banner.stale"), page.url).to_be_visible()
                await expect(page.get_by_test_id("live-state")).to_have_text("Database away")
            # Who comes only now is asked for patience, by a page that looks for itself.
            answer = await late.goto(f"{furnished.server.url}/admin/instances")
            assert answer is not None
            assert (answer.status, await late.locator("h1").inner_text()) == (503, "One moment, please")
        finally:
            await beside.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
            # Ours were cut too.
            await furnished.world.db.close()
    for page in open_pages:
        await expect(page.locator(".banner.stale"), page.url).to_be_hidden()
        await expect(page.get_by_test_id("live-state")).to_have_text("Live")
    await expect(late.get_by_test_id("vm-genomics-001")).to_be_visible(timeout=10_000)
    await late.close()


async def test_when_the_connection_is_lost_every_page_says_so_until_it_is_back(open_pages: list[Page]) -> None:
    for page in open_pages:
        await page.evaluate("window.socket.disconnect()")
    for page in open_pages:
        await expect(page.locator(".banner.offline"), page.url).to_be_visible()
        await expect(page.locator(".live-chip .when-off")).to_be_visible()
        await page.evaluate("window.socket.connect()")
    for page in open_pages:
        await expect(page.locator(".banner.offline"), page.url).to_be_hidden()
        await expect(page.locator(".live-chip .when-off")).to_be_hidden()


@asynccontextmanager
async def database(place: Place) -> AsyncIterator[Database]:
    """The services' way to the database of a server."""
    db = Database(place.database_url)
    yield db
    await db.close()
