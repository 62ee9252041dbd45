"""Pictures of every page in every state, to be looked at: ``python -m tests.pages.pictures [WORD …]``.

They go to ``tests/artifacts/``, light and dark, wide and phone; words choose those whose
name holds one of them, such as ``seat-active`` or ``machines-phone-dark``.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.async_api import Browser, Page, async_playwright, expect

from backend.db.embedded import EmbeddedPostgres
from backend.db.engine import Database
from backend.db.migrate import migrate
from backend.services.pools import set_pool_open
from tests.conftest import CHROMIUM, CHROMIUM_FLAGS
from tests.harness.pages import Visitor, visit
from tests.harness.server import Server
from tests.pages.worlds import KIM, SETTINGS, World, crowd, furnish

ARTIFACTS = Path(__file__).parents[1] / "artifacts"
SIZES = {"wide": {"width": 1440, "height": 900}, "phone": {"width": 390, "height": 844}}
THEMES = ("light", "dark")
Act = Callable[[Page], Awaitable[object]]


@dataclass(frozen=True)
class Picture:
    """One state of one page. ``seat`` names whose browser it is; ``act`` brings the page there."""

    name: str
    path: str
    seat: str = ""
    is_admin: bool = True
    act: Act | None = None
    is_full: bool = False


def public(name: str, path: str, *, seat: str = "", act: Act | None = None) -> Picture:
    """A page that needs no sign-in."""
    return Picture(name, path, seat, is_admin=False, act=act)


async def select_three(page: Page) -> None:
    for name in ("genomics-001", "genomics-011", "genomics-012"):
        await page.get_by_test_id(f"vm-{name}").get_by_role("checkbox").check()


async def ask_to_destroy(page: Page) -> None:
    await select_three(page)
    await page.get_by_test_id("vm-action-destroy").click()
    await expect(page.get_by_test_id("confirm-submit")).to_be_visible()


async def search_nothing(page: Page) -> None:
    await page.get_by_role("searchbox").fill("no such machine")


async def filter_trouble(page: Page) -> None:
    await page.get_by_role("button", name="Trouble").click()


async def lose_socket(page: Page) -> None:
    await page.evaluate("window.socket.disconnect()")
    await expect(page.locator(".banner.offline")).to_be_visible()


async def pretend_stale(page: Page) -> None:
    await page.evaluate("document.querySelector('.banner.stale').dataset.status = 'stale'")


async def launch_too_many(page: Page) -> None:
    await page.get_by_test_id("launch-count").fill("50")
    await page.get_by_test_id("launch-submit").click()
    await expect(page.get_by_test_id("launch-error")).not_to_be_empty()


async def sign_in_wrongly(page: Page) -> None:
    await page.get_by_test_id("login-password").fill("wrong")
    await page.get_by_test_id("login-submit").click()
    await page.wait_for_url("**error=**")


async def claim_wrongly(page: Page) -> None:
    await page.get_by_test_id("claim-email").fill("ada@lab.org")
    await page.get_by_test_id("claim-submit").click()
    await expect(page.get_by_test_id("claim-error")).not_to_be_empty()


async def join_wrongly(page: Page) -> None:
    await page.get_by_test_id("join-code").fill("nowhere")
    await page.get_by_test_id("join-submit").click()
    await expect(page.get_by_role("alert")).not_to_be_empty()


async def make_tokens(page: Page) -> None:
    await page.get_by_test_id("enrolment-count").fill("2")
    await page.get_by_test_id("enrolment-submit").click()
    await expect(page.get_by_test_id("enrolment-tokens")).not_to_be_empty()


BARE = (
    Picture("admin-empty", "/admin"),
    Picture("machines-empty", "/admin/instances"),
    Picture("operations-empty", "/admin/operations"),
    Picture("events-few", "/admin/events"),
    Picture("pools-one", "/admin/pools"),
)
CLOSED = (Picture("launch-no-pool", "/admin/create"),)
FURNISHED = (
    public("home", "/"),
    public("home-wrong-code", "/", act=join_wrongly),
    public("home-with-seat", "/", seat="active"),
    public("join", "/join/genomics"),
    public("join-line", "/join/default"),
    public("join-taken", "/join/genomics", act=claim_wrongly),
    public("join-unknown", "/join/unknown"),
    public("join-closed", "/join/retired"),
    public("seat-none", "/seat"),
    public("seat-waiting", "/seat", seat="waiting"),
    public("seat-preparing", "/seat", seat="preparing"),
    public("seat-active", "/seat", seat="active"),
    public("seat-released", "/seat", seat="released"),
    public("seat-failed", "/seat", seat="failed"),
    public("login", "/login"),
    public("login-error", "/login", act=sign_in_wrongly),
    public("not-found", "/nowhere"),
    public("seat-link-spent", "/seat/open/spent"),
    Picture("admin", "/admin"),
    Picture("launch", "/admin/create?pool=genomics"),
    Picture("launch-error", "/admin/create?pool=genomics", act=launch_too_many),
    Picture("machines", "/admin/instances"),
    Picture("machines-trouble", "/admin/instances", act=filter_trouble),
    Picture("machines-nothing-matches", "/admin/instances", act=search_nothing),
    Picture("machines-selected", "/admin/instances", act=select_three),
    Picture("machines-dialog", "/admin/instances", act=ask_to_destroy),
    Picture("machines-offline", "/admin/instances", act=lose_socket),
    Picture("machines-stale", "/admin/instances", act=pretend_stale),
    Picture("machine-fresh", "/admin/instances/genomics-013", is_full=True),
    Picture("machine-in-use", "/admin/instances/genomics-001", is_full=True),
    Picture("machine-long-email", "/admin/instances/genomics-004"),
    Picture("machine-failed", "/admin/instances/vision-004", is_full=True),
    Picture("machine-silent", "/admin/instances/genomics-002"),
    Picture("machine-destroyed", "/admin/instances/vision-003"),
    Picture("machine-unknown", "/admin/instances/nowhere"),
    Picture("operations", "/admin/operations"),
    *(Picture(f"operation-{state}", f"/admin/operations/{{{state}}}", is_full=True)
      for state in ("queued", "running", "succeeded", "failed", "cancelled")),
    Picture("operation-unknown", "/admin/operations/4711"),
    Picture("pools", "/admin/pools", is_full=True),
    Picture("pool", "/admin/pools/genomics", act=make_tokens, is_full=True),
    Picture("pool-closed", "/admin/pools/retired"),
    Picture("pool-unknown", "/admin/pools/nowhere"),
    Picture("events", "/admin/events"),
)  # fmt: skip
CROWDED = (
    Picture("admin-crowded", "/admin"),
    Picture("machines-crowded", "/admin/instances"),
    Picture("events-many", "/admin/events"),
    Picture("operation-crowded", "/admin/operations/9"),
)


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
        async with _serve(furnished) as server:
            await _take(browser, server, FURNISHED, words, world)
            await crowd(furnished)
            await _take(browser, server, CROWDED, words, world)


async def _take(
    browser: Browser, server: Server, pictures: Sequence[Picture], words: Sequence[str], world: World | None = None
) -> None:
    for size, theme in itertools.product(SIZES, THEMES):
        names = {each: f"{each.name}-{size}-{theme}" for each in pictures}
        people: dict[str, Visitor] = {}
        for picture, name in names.items():
            if words and not any(word in name for word in words):
                continue
            whose = "admin" if picture.is_admin else picture.seat
            if whose not in people:
                people[whose] = await visit(browser, server, viewport=SIZES[size], color_scheme=theme)
                await _become(people[whose], picture, world)
            await _shoot(people[whose], picture, world, f"{name}.png")
        for person in people.values():
            await person.context.close()


async def _become(person: Visitor, picture: Picture, world: World | None) -> None:
    if picture.is_admin:
        await person.sign_in()
    elif picture.seat and world:
        cookie = {"name": "lablink-browser", "value": world.seats[picture.seat], "url": person.server.url}
        await person.context.add_cookies([cookie])


async def _shoot(person: Visitor, picture: Picture, world: World | None, name: str) -> None:
    page = person.page
    path = picture.path.format(**world.operations) if world else picture.path
    await page.goto(server_url := person.server.url + path)
    await page.wait_for_function("window.did_handshake || !document.querySelector('#app')")
    await expect(page.locator("[aria-busy=true]")).to_have_count(0)
    # What a page reads after its first picture: charts, logs, costs.
    await page.wait_for_timeout(300)
    if picture.act:
        await picture.act(page)
        await page.wait_for_timeout(300)
    await page.screenshot(path=ARTIFACTS / name, full_page=picture.is_full)
    wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
    if wide > 0:
        print(f"{name}: {wide} px wider than the window ({server_url})")
    for error in person.errors:
        print(f"{name}: {error}")
    person.errors.clear()


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
        server = Server(Path(home) / "home", *SETTINGS, database_url=url)
        try:
            yield await server.start()
        finally:
            await server.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
