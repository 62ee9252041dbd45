"""Everything works by keyboard: without a mouse, with the focus always to be seen and never lost."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, Page, expect

from backend.services.pools import PoolSpec, ensure_pool
from tests.harness.pages import Visitor, visit
from tests.harness.server import PASSWORD
from tests.pages.worlds import KIM, claim, launch, obey, release

# What has the focus: its test id, whether it is in a dialog, and whether a ring shows it.
FOCUS = """() => {
  const at = document.activeElement, style = getComputedStyle(at);
  const isWhole = at === document.body || at.id === "content";
  return {
    testid: at.dataset.testid || "", name: at.getAttribute("aria-label") || at.innerText || "",
    inDialog: !!at.closest("dialog"), isBody: at === document.body,
    isSeen: isWhole || (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2),
  };
}"""


@pytest.fixture
async def person(browser: Browser, furnished) -> AsyncIterator[Visitor]:
    """Somebody without a mouse."""
    made = await visit(browser, furnished.server, reduced_motion="reduce")
    yield made
    assert made.errors == []
    await made.context.close()


async def tab_to(page: Page, *, testid: str = "", name: str = "", key: str = "Tab", most: int = 60) -> None:
    """Presses Tab until the focus is there; at every stop it can be seen."""
    stops = []
    for _ in range(most):
        await page.keyboard.press(key)
        at = await page.evaluate(FOCUS)
        assert at["isSeen"], at
        stops.append(at["testid"] or at["name"])
        if (testid and at["testid"] == testid) or (name and at["name"].strip() == name):
            return
    raise AssertionError(f"{testid or name} is not among the stops of the keyboard: {stops}")


async def test_signing_in_and_launching(furnished, person: Visitor) -> None:
    await ensure_pool(furnished.world.db, "keys", PoolSpec(), actor=KIM)
    page = await person.go("/admin/create?pool=keys")
    await expect(page.get_by_test_id("login-password")).to_be_focused()
    await page.keyboard.type(PASSWORD)
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/admin/create?pool=keys")
    await page.wait_for_function("window.did_handshake")
    await tab_to(page, name="Skip to the content")
    await page.keyboard.press("Enter")
    await tab_to(page, testid="launch-count")
    await page.keyboard.press("ControlOrMeta+a")
    await page.keyboard.type("2")
    await expect(
        page.get_by_text("2 machines", exact=False).or_(page.get_by_text("keys-001, keys-002"))
    ).to_be_visible()
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/admin/operations/*")
    await person.sees_status("operation-status", "queued")
    await page.wait_for_function("window.did_handshake")
    await tab_to(page, testid="operation-cancel")
    await page.keyboard.press("Enter")
    await expect(page.get_by_test_id("confirm-cancel")).to_be_focused()
    await tab_to(page, testid="confirm-submit")
    await page.keyboard.press("Space")
    await person.sees_status("operation-status", "cancelled")


async def test_selecting_and_destroying_with_a_dialog_that_keeps_the_focus(furnished, person: Visitor) -> None:
    await ensure_pool(furnished.world.db, "doomed", PoolSpec(), actor=KIM)
    await launch(furnished.world.db, "doomed", 2)
    await person.sign_in()
    page = await person.go("/admin/instances")
    await page.keyboard.press("Tab")
    await tab_to(page, name="Search Machines")
    await page.keyboard.type("doomed-002")
    await expect(page.locator("tbody tr")).to_have_count(1)
    await tab_to(page, name="Select doomed-002")
    await page.keyboard.press("Space")
    await tab_to(page, testid="vm-action-destroy", key="Shift+Tab")
    await page.keyboard.press("Enter")

    await expect(page.get_by_test_id("confirm-cancel")).to_be_focused()
    for _ in range(6):
        await page.keyboard.press("Tab")
        at = await page.evaluate(FOCUS)
        assert at["inDialog"] or at["isBody"], f"the focus left the dialog for {at}"
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("alertdialog")).to_be_hidden()
    await expect(page.get_by_test_id("vm-action-destroy")).to_be_focused()
    await person.sees_status("vm-doomed-002", "available")

    await page.keyboard.press("Enter")
    await tab_to(page, testid="confirm-submit")
    await page.keyboard.press("Enter")
    await person.sees_status("vm-doomed-002", "destroying")
    # A link is a way too: from the row to the machine's own page.
    await tab_to(page, name="doomed-002")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/admin/instances/doomed-002")


async def test_sorting_and_filtering_a_table(furnished, person: Visitor) -> None:
    await person.sign_in()
    page = await person.go("/admin/instances")
    rows = page.locator("tbody tr")
    await tab_to(page, name=await name_of(page, "Trouble"))
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("button", name=re.compile("^Trouble"))).to_have_attribute("aria-pressed", "true")
    await tab_to(page, name=await name_of(page, "Machine"))
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("columnheader", name=re.compile("^Machine"))).to_have_attribute(
        "aria-sort", "descending"
    )
    names = await rows.locator("td.first a").all_inner_texts()
    assert names == sorted(names, reverse=True)
    assert len(names) > 3


async def name_of(page: Page, start: str) -> str:
    return (await page.get_by_role("button", name=re.compile(f"^{start}")).inner_text()).strip()


async def test_joining_claiming_and_giving_back(furnished, person: Visitor) -> None:
    world = furnished.world
    await ensure_pool(world.db, "course", PoolSpec(), actor=KIM)
    (hostname,) = (await launch(world.db, "course", 1)).hostnames
    page = await person.go("/")
    await expect(page.get_by_test_id("join-code")).to_be_focused()
    await page.keyboard.type("Course")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/join/course")
    await page.wait_for_function("window.did_handshake")
    await expect(page.get_by_test_id("claim-email")).to_be_focused()
    await page.keyboard.type("keys@lab.org")
    await tab_to(page, testid="claim-submit")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/seat")
    await person.sees_status("seat-status", "preparing")
    await obey(world, hostname)
    await person.sees_status("seat-status", "active")
    await page.wait_for_function("window.did_handshake")
    await tab_to(page, testid="seat-release")
    await page.keyboard.press("Space")
    await expect(page.get_by_test_id("confirm-cancel")).to_be_focused()
    await page.keyboard.press("Enter")
    await person.sees_status("seat-status", "active")
    await expect(page.get_by_test_id("seat-release")).to_be_focused()
    await page.keyboard.press("Space")
    await tab_to(page, testid="confirm-submit")
    await page.keyboard.press("Space")
    await person.sees_status("seat-status", "released")


async def test_who_cannot_see_the_page_hears_the_place_in_line_and_the_state_of_the_seat(
    browser: Browser, furnished
) -> None:
    world = furnished.world
    await ensure_pool(world.db, "heard", PoolSpec(), actor=KIM)
    first = await claim(world, "heard", "first@lab.org")
    second = await claim(world, "heard", "second@lab.org")
    listener = await visit(browser, furnished.server)
    await listener.context.add_cookies([{"name": "lablink-browser", "value": second, "url": furnished.server.url}])
    page = await listener.go("/seat")
    line = page.get_by_role("status").filter(has=page.get_by_test_id("seat-position"))
    state = page.get_by_role("status").filter(has=page.get_by_test_id("seat-status"))
    await expect(line).to_contain_text("Your place in line")
    await expect(line).to_contain_text("1 person before you")
    await expect(line).to_have_attribute("aria-atomic", "true")
    # The very elements stay: a region that is replaced is not read out.
    await page.evaluate("document.querySelectorAll('[role=status]').forEach((each) => (each.isTheSame = true))")
    await release(world, "heard", first)
    await expect(line).to_contain_text("You are next.")
    assert await line.evaluate("(each) => each.isTheSame")
    (hostname,) = (await launch(world.db, "heard", 1)).hostnames
    await expect(state).to_contain_text("Getting ready")
    await obey(world, hostname)
    await expect(state).to_contain_text("Ready")
    assert await state.evaluate("(each) => each.isTheSame")
    await listener.context.close()
