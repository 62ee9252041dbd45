"""The map of the fleet and a machine's charts, as people use them."""

from __future__ import annotations

from playwright.async_api import expect

from backend.services.pools import set_pool_open
from backend.services.vms import get_vm
from tests.harness.pages import Visitor
from tests.pages.worlds import KIM, beat


async def test_the_map_is_live_says_what_is_wrong_and_goes_by_arrow_keys(furnished, admin: Visitor) -> None:
    page = await admin.go("/admin/fleet")
    hot = page.get_by_test_id("cell-genomics-001")
    await expect(hot).to_have_accessible_name(
        "genomics-001: In use, Disk nearly full, GPU hot, Clock wrong, GPU busy 97 %"
    )
    await expect(hot).to_have_text("97▲")
    await page.get_by_test_id("fleet-measure").select_option("temperature")
    await expect(hot).to_have_text("93▲")
    await page.get_by_test_id("fleet-measure").select_option("cpu")
    await beat(furnished.world.db, ["genomics-005"], memory_pct=99.0, reasons=("new words",), cpu_pct=64.0)
    await expect(page.get_by_test_id("cell-genomics-005")).to_have_text("64")

    # One stop for Tab, then arrows; what is known of the cell in focus is told.
    await expect(page.locator(".cell[tabindex='0']")).to_have_count(1)
    await page.locator(".cell[tabindex='0']").focus()
    await page.keyboard.press("End")
    await page.keyboard.press("Home")
    await expect(page.locator(".cell").first).to_be_focused()
    # Whatever stands above it: up, and down again.
    await hot.focus()
    await page.keyboard.press("ArrowUp")
    await expect(hot).not_to_be_focused()
    await page.keyboard.press("ArrowDown")
    await expect(hot).to_be_focused()
    await page.keyboard.press("ArrowRight")
    await expect(page.get_by_test_id("fleet-about")).to_contain_text("genomics-002: In use, Unreachable")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/admin/instances/genomics-002")


async def test_a_machines_charts_go_back_as_far_as_is_asked_with_its_events_on_them(furnished, admin: Visitor) -> None:
    page = await admin.go("/admin/instances/genomics-001")
    condition = page.get_by_test_id("condition-gpu-hot")
    await expect(condition).to_contain_text("GPU 0 is at 93 °C; 90 °C is too hot.")
    await expect(condition).to_contain_text("Look at its fans")
    await expect(condition).to_have_attribute("data-status", "warning")
    chart = page.locator(".chart").first
    hour_marks = chart.locator(".mark")
    await expect(hour_marks).to_have_count(1)
    await page.get_by_test_id("history-24h").click()
    await expect(page.get_by_test_id("history-24h")).to_have_attribute("aria-pressed", "true")
    await expect(chart.locator(".mark").nth(2)).to_be_attached()
    assert "GPU 0 is at 93 °C" in " ".join(
        [str(await mark.get_attribute("title")) for mark in await chart.locator(".mark").all()]
    )
    vm = await get_vm(furnished.world.db, "genomics-001")
    assert vm.conditions


async def test_an_event_alone_comes_to_open_pages_not_all_before_it_again_and_a_page_that_lost_one_gets_all(
    furnished, admin: Visitor
) -> None:
    db, page = furnished.world.db, await admin.go("/admin/events")
    told: list[int] = []
    page.on("websocket", lambda socket: socket.on("framereceived", lambda said: told.append(len(said))))
    await page.reload()
    rows = page.locator("tbody tr[data-status]")
    await expect(rows.nth(50)).to_be_attached()
    number, asked = await rows.count(), sum(told)
    await set_pool_open(db, "genomics", is_open=False, actor=KIM)
    await expect(rows.first).to_contain_text("Pool genomics is closed")
    assert sum(told) - asked < asked / 10

    await page.evaluate("getElement(document.querySelector('.table-card').id.slice(1)).seq += 1")
    await set_pool_open(db, "genomics", is_open=True, actor=KIM)
    await expect(rows.first).to_contain_text("Pool genomics is open")
    assert await rows.count() >= min(number + 2, 200)
