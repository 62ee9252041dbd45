"""The bell on every page of the console, and the page of alarms, live and by keyboard."""

from __future__ import annotations

from playwright.async_api import Browser, Page, expect

from backend.db.engine import Database
from backend.services.alarm_rules import Seen
from backend.services.alarms import record_own
from backend.setting_keys import AlarmSettings
from backend.states import AlarmKind, Severity
from tests.harness.pages import visit

LIMITS = AlarmSettings(quiet_s=0)


async def ring(db: Database, *subjects: str, room: str = "3 %") -> None:
    """What a server called ``rack`` says of its disks from now on."""
    seen = [
        Seen(AlarmKind.SERVER, each, Severity.CRITICAL, f"The disk {each} of rack has {room} left.", "Make room.")
        for each in subjects
    ]
    await record_own(db, "rack:8080", seen, LIMITS)


async def ringing(page: Page) -> int:
    await expect(page.locator("[aria-busy=true]")).to_have_count(0)
    return int(await page.get_by_test_id("alarm-bell").get_attribute("data-status") or "0")


async def test_the_bell_rings_on_an_open_page_and_an_alarm_lives_from_its_cause_to_its_end(
    browser: Browser, furnished
) -> None:
    db = furnished.world.db
    person = await (await visit(browser, furnished.server, reduced_motion="reduce")).sign_in()
    page = await person.go("/admin/events")
    bell = page.get_by_test_id("alarm-bell")
    before = await ringing(page)
    assert before > 0
    await ring(db, "one", "two")
    await expect(bell).to_have_attribute("data-status", str(before + 2))
    await expect(page.get_by_role("status").filter(has_text=f"{before + 2} alarms to look at")).to_have_count(1)

    await bell.click()
    await page.wait_for_url("**/admin/alarms")
    await page.wait_for_function("window.did_handshake")
    row = page.locator("[data-testid=alarms-open] li", has_text="disk one of rack")
    await expect(row).to_have_attribute("data-status", "open")
    await row.get_by_role("button").focus()
    await ring(db, "one", "two", room="2 %")
    await expect(row).to_contain_text("2 % left")
    await page.keyboard.press("Enter")
    await expect(row).to_have_attribute("data-status", "acknowledged")
    await expect(row).to_contain_text("acknowledged by admin")
    await expect(bell).to_have_attribute("data-status", str(before + 1))
    # The keyboard goes on at the next one.
    await page.wait_for_function("(document.activeElement.dataset.testid || '').startsWith('alarm-acknowledge-')")

    await ring(db, "two")
    await expect(row).to_have_count(0)
    over = page.locator("tr", has_text="disk one of rack")
    await expect(over).to_contain_text("admin")
    await ring(db)
    await expect(bell).to_have_attribute("data-status", str(before))
    assert person.errors == []
