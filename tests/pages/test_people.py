"""The people in real browsers: invited, looking, changed, shut out; and each page for everybody's eyes and keys."""

from __future__ import annotations

import json
from typing import Any

import pyotp
import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, expect

from backend.states import Role
from tests.harness.pages import Visitor, visit
from tests.harness.people import PEOPLES_PASSWORD, make_person
from tests.harness.server import Server

NEW_PASSWORD = "quite another password"
# Everything of the console that changes something; a viewer may see none of it able to.
CHANGING = (
    "launch-submit",
    "pool-submit",
    "pool-save",
    "pool-toggle",
    "enrolment-submit",
    "invite-create",
    "token-create",
    "user-disable",
    "user-role-submit",
    "user-reset",
    "user-end-sessions",
)


async def sign_in(visitor: Visitor, name: str, password: str = PEOPLES_PASSWORD) -> Page:
    page = await visitor.go("/login")
    await page.get_by_test_id("login-user").fill(name)
    await page.get_by_test_id("login-password").fill(password)
    await page.get_by_test_id("login-submit").click()
    return page


@pytest.fixture
async def admin(browser: Browser, shared_server: Server) -> Any:
    visitor = await (await visit(browser, shared_server)).sign_in()
    yield visitor
    await visitor.context.close()


@pytest.fixture
async def other(browser: Browser, shared_server: Server) -> Any:
    visitor = await visit(browser, shared_server)
    yield visitor
    await visitor.context.close()


async def find_violations(page: Page) -> list[str]:
    # What is just fading in or out has no contrast to speak of.
    await page.emulate_media(reduced_motion="reduce")
    results = await Axe().run(page)
    return [
        f"{page.url}: {each['id']} {json.dumps(each['nodes'][0]['html'])}" for each in results.response["violations"]
    ]


async def test_an_invited_viewer_comes_in_and_is_shown_nothing_to_change(
    admin: Visitor, other: Visitor, shared_server: Server
) -> None:
    page = await admin.go("/admin/people")
    await page.get_by_test_id("invite-name").fill("wren")
    await page.get_by_test_id("invite-role").select_option("viewer")
    await page.get_by_test_id("invite-create").click()
    await expect(page.get_by_test_id("invite-link")).not_to_be_empty()
    link = await page.get_by_test_id("invite-link").text_content() or ""
    await expect(page.get_by_test_id("invite-wren")).to_be_visible()

    theirs = await other.go(link.removeprefix(shared_server.url))
    assert await find_violations(theirs) == []
    await theirs.get_by_test_id("invite-password").fill(NEW_PASSWORD)
    await theirs.get_by_test_id("invite-again").fill(NEW_PASSWORD + "!")
    await theirs.get_by_test_id("invite-submit").click()
    await expect(theirs.get_by_test_id("invite-error")).to_contain_text("not the same")
    await theirs.get_by_test_id("invite-password").fill(NEW_PASSWORD)
    await theirs.get_by_test_id("invite-again").fill(NEW_PASSWORD)
    await theirs.get_by_test_id("invite-submit").click()
    await theirs.get_by_test_id("login-password").fill(NEW_PASSWORD)
    await theirs.get_by_test_id("login-submit").click()
    await theirs.wait_for_url("**/admin")
    # The admin's page follows: the invite is spent, the user is there.
    await expect(page.get_by_test_id("user-wren")).to_have_attribute("data-status", "active")
    await expect(page.get_by_test_id("invite-wren")).to_have_count(0)

    for path in ("/admin", "/admin/instances?destroy=1", "/admin/create", "/admin/pools", "/admin/pools/default",
                 "/admin/operations", "/admin/people", "/admin/people/wren", "/admin/events"):  # fmt: skip
        await other.go(path)
        await expect(theirs.locator("[aria-busy=true]")).to_have_count(0)
        for testid in CHANGING:
            for control in await theirs.get_by_test_id(testid).all():
                assert await control.is_hidden() or await control.is_disabled(), (path, testid)
        for control in await theirs.locator("[data-testid^='vm-action-'], [data-testid^='session-end-']").all():
            assert await control.is_hidden() or await control.is_disabled(), path
    await other.go("/admin/people")
    await expect(theirs.locator(".note")).to_contain_text("As viewer you may look")
    assert other.errors == []


@pytest.mark.long
async def test_a_revoked_session_ends_its_open_pages_and_a_new_role_draws_them_anew(
    admin: Visitor, other: Visitor, shared_server: Server
) -> None:
    name = await make_person(shared_server, Role.VIEWER)
    theirs = await sign_in(other, name)
    await theirs.wait_for_url("**/admin")
    await other.go("/admin/people")
    page = await admin.go(f"/admin/people/{name}")
    await page.get_by_test_id("user-role").select_option("admin")
    await page.get_by_test_id("user-role-submit").click()
    await expect(theirs.get_by_test_id("invite-create")).to_be_visible()
    await theirs.wait_for_function("window.did_handshake")

    await page.locator("[data-testid^='session-end-']").click()
    await theirs.wait_for_url("**/login?error=ended&next=/admin/people")
    await expect(theirs.get_by_test_id("login-error")).to_contain_text("session has ended")

    await sign_in(other, name)
    await theirs.wait_for_url("**/admin")
    await theirs.wait_for_function("window.did_handshake")
    await page.get_by_test_id("user-disable").click()
    await page.get_by_test_id("confirm-submit").click()
    await theirs.wait_for_url("**/login?error=ended**")
    await sign_in(other, name)
    await expect(theirs.get_by_test_id("login-error")).to_contain_text("wrong")
    await expect(page.get_by_test_id("user-status")).to_have_attribute("data-status", "disabled")
    await page.get_by_test_id("user-enable").click()
    await expect(page.get_by_test_id("user-status")).to_have_attribute("data-status", "active")


async def test_a_page_that_will_not_go_has_nothing_left_to_act_with(
    admin: Visitor, other: Visitor, shared_server: Server
) -> None:
    name = await make_person(shared_server, Role.ADMIN)
    theirs = await sign_in(other, name)
    await theirs.wait_for_url("**/admin")
    await other.go("/admin/people")
    # A browser that does not let itself be sent away.
    await theirs.route("**/login**", lambda route: route.abort())
    page = await admin.go(f"/admin/people/{name}")
    await page.get_by_test_id("user-end-sessions").click()
    await page.get_by_test_id("confirm-submit").click()
    await theirs.wait_for_function("!document.querySelector('[data-testid=token-create]')", timeout=10_000)
    assert (await shared_server.api.get(f"/api/admin/events?actor=admin:{name}&words=ended")).json()["events"] == []


async def test_one_sets_up_the_second_step_and_changes_the_password(other: Visitor, shared_server: Server) -> None:
    name = await make_person(shared_server, Role.VIEWER)
    page = await sign_in(other, name)
    await page.wait_for_url("**/admin")
    await page.get_by_test_id("account-link").click()
    await page.wait_for_url("**/admin/account")
    await page.wait_for_function("window.did_handshake")
    await page.get_by_test_id("second-step-password").fill("wrong")
    await page.get_by_test_id("second-step-begin").click()
    await expect(page.get_by_test_id("second-step-begin-error")).to_contain_text("wrong")
    await page.get_by_test_id("second-step-password").fill(PEOPLES_PASSWORD)
    await page.get_by_test_id("second-step-begin").click()
    secret = await page.get_by_test_id("second-step-secret").text_content()
    assert secret is not None
    await expect(page.locator(".qr svg")).to_be_visible()
    assert await find_violations(page) == []
    app = pyotp.TOTP(secret)
    await page.get_by_test_id("second-step-code").fill("000000")
    await page.get_by_test_id("second-step-confirm").click()
    await expect(page.get_by_test_id("second-step-confirm-error")).to_contain_text("wrong")
    first = app.now()
    await page.get_by_test_id("second-step-code").fill(first)
    await page.get_by_test_id("second-step-confirm").click()
    await expect(page.get_by_test_id("second-step")).to_have_attribute("data-status", "on")

    await page.get_by_test_id("password-old").fill(PEOPLES_PASSWORD)
    await page.get_by_test_id("password-new").fill(NEW_PASSWORD)
    await page.get_by_test_id("password-again").fill(NEW_PASSWORD)
    await page.get_by_test_id("password-submit").click()
    await expect(page.locator(".told").filter(has_text="Your password was changed")).to_be_visible()
    await expect(page.get_by_test_id("password-new")).to_have_value("")

    await page.get_by_role("button", name="Sign out", exact=True).click()
    await page.wait_for_url("**/login")
    await sign_in(other, name, NEW_PASSWORD)
    await page.wait_for_url("**/login/code**")
    assert await find_violations(page) == []
    await page.get_by_test_id("login-code").fill(first)
    await page.get_by_test_id("login-code-submit").click()
    await expect(page.get_by_test_id("login-error")).to_contain_text("wrong or was used already")


async def test_filters_of_the_events_are_those_of_the_file(admin: Visitor, shared_server: Server) -> None:
    name = await make_person(shared_server, Role.OPERATOR)
    page = await admin.go("/admin/events")
    await page.get_by_test_id("events-group").select_option("people")
    await page.get_by_test_id("events-actor").fill(name)
    row = page.locator("table.live tbody tr")
    await expect(row).to_have_count(1)
    await expect(row).to_contain_text(f"{name} accepted the invite of admin:test, as operator")
    async with page.expect_download() as caught:
        await page.get_by_test_id("events-export-csv").click()
    saved = await (await caught.value).path()
    lines = saved.read_text().splitlines()
    assert len(lines) == 2
    assert f"{name} accepted the invite" in lines[1]


async def test_somebody_is_invited_with_the_keyboard_alone(admin: Visitor) -> None:
    page = await admin.go("/admin/people")
    await page.get_by_test_id("invite-name").focus()
    await page.keyboard.type("keys")
    await page.keyboard.press("Tab")
    await page.keyboard.type("Operator")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(page.get_by_test_id("invite-link")).not_to_be_empty()
    await page.get_by_test_id("invite-revoke-keys").focus(timeout=5_000)
    await page.keyboard.press("Enter")
    await expect(page.get_by_test_id("confirm-submit")).to_be_visible()
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(page.get_by_test_id("invite-keys")).to_have_count(0)
