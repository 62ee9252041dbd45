"""Who is signed in sees the console; who is no longer, does not: on no page, not even on one that was open before."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, expect

from tests.harness.pages import Visitor, visit
from tests.harness.server import PASSWORD, gather_all
from tests.pages.conftest import connect

CONSOLE = (
    "/admin",
    "/admin/create",
    "/admin/destroy",
    "/admin/instances",
    "/admin/instances/genomics-001",
    "/admin/operations",
    "/admin/operations/1",
    "/admin/pools",
    "/admin/pools/genomics",
    "/admin/events",
)
NEWEST = "SELECT max(id) FROM admin_sessions"


@pytest.fixture
async def visitor(browser: Browser, furnished) -> AsyncIterator[Visitor]:
    """Somebody new at the furnished server."""
    person = await visit(browser, furnished.server, reduced_motion="reduce")
    yield person
    await person.context.close()


@pytest.mark.parametrize("path", CONSOLE)
async def test_signed_out_every_page_of_the_console_leads_to_the_sign_in(furnished, path: str) -> None:
    async with furnished.server.client() as client:
        answer = await client.get(path)
        if path == "/admin/destroy":
            # It only knows where to send people.
            answer = await client.get(answer.headers["location"])
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/login?next=/admin")


async def test_signing_in_leads_back_to_the_page_that_was_asked_for(visitor: Visitor) -> None:
    await visitor.go("/admin/instances?status=failed")
    await expect(visitor.page).to_have_url(re.compile(r"/login\?next="))
    await visitor.page.get_by_test_id("login-password").fill(PASSWORD)
    await visitor.page.get_by_test_id("login-submit").click()
    await visitor.page.wait_for_url("**/admin/instances?status=failed")
    await expect(visitor.page.get_by_role("button", name=re.compile("^Failed"))).to_have_attribute(
        "aria-pressed", "true"
    )


async def test_signing_in_by_a_hostile_link_stays_here(visitor: Visitor) -> None:
    await visitor.go("/login?next=https://elsewhere.example/admin")
    await visitor.page.get_by_test_id("login-password").fill(PASSWORD)
    await visitor.page.get_by_test_id("login-submit").click()
    await visitor.page.wait_for_url(f"{visitor.server.url}/admin")


async def test_signing_out_in_one_tab_sends_every_open_page_to_the_sign_in(visitor: Visitor) -> None:
    await visitor.sign_in()
    await visitor.go("/admin")
    paths = ("/admin/instances", "/admin/operations/3", "/admin/events")
    tabs = [await visitor.context.new_page() for _ in paths]

    async def open_tab(tab, path: str) -> None:
        await tab.goto(visitor.server.url + path)
        await expect(tab.locator("[aria-busy=true]")).to_have_count(0)

    await gather_all(*(open_tab(tab, path) for tab, path in zip(tabs, paths, strict=True)))
    await visitor.page.get_by_role("button", name="Sign out").click()
    await visitor.page.wait_for_url("**/login")
    for tab, path in zip(tabs, paths, strict=True):
        await tab.wait_for_url(f"**/login?error=ended&next={path}")
        await expect(tab.get_by_test_id("login-error")).to_have_text("Your session has ended. Sign in again to go on.")


async def test_an_action_of_a_page_left_open_is_refused_after_the_session_ended(furnished, visitor: Visitor) -> None:
    await visitor.sign_in()
    await visitor.go("/admin/instances/genomics-012")
    # By the keyboard: what a mouse presses moves while the page still fills.
    await visitor.page.get_by_test_id("vm-action-reboot").press("Enter")
    async with await connect(furnished.database_url) as connection:
        # Ended in a way that sends no notice: the page does not know yet, the action must find out by itself.
        await connection.execute("SET session_replication_role = replica")
        await connection.execute(f"UPDATE admin_sessions SET revoked_at = now() WHERE id = ({NEWEST})")
    await visitor.page.get_by_test_id("confirm-submit").click()
    await expect(visitor.page.get_by_text("Your session has ended. Sign in again.")).to_be_visible()
    assert (await furnished.server.list_vms())["genomics-012"]["status"] == "available"
    # With the next word about that session, the page itself goes too.
    async with await connect(furnished.database_url) as connection:
        await connection.execute(f"UPDATE admin_sessions SET user_agent = '' WHERE id = ({NEWEST})")
    await visitor.page.wait_for_url("**/login?error=ended**")
