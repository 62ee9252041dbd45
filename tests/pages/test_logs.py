"""Logs as people use them: live, searched, filtered, held, saved; twenty thousand lines as twenty."""

from __future__ import annotations

import json
from collections.abc import Sequence

from playwright.async_api import Page, expect

from backend.db.engine import Database
from backend.services.operations import list_operations
from backend.services.runs import LogLine, record_log
from backend.services.vm_logs import LogBatch, record_vm_log, record_vm_logs
from backend.services.vms import get_vm
from tests.harness.pages import Visitor

MANY = 20_000
LONGEST_DOM = 410


async def write(db: Database, hostname: str, source: str, lines: Sequence[str]) -> int:
    """Lines of one machine; returns the id of the machine."""
    vm = await get_vm(db, hostname)
    await record_vm_log(db, vm.id, source, lines)
    return vm.id


async def lines_of(page: Page) -> list[str]:
    return [said.strip() for said in await page.locator(".log .said").all_inner_texts()]


async def test_a_line_is_on_open_pages_at_once_and_on_no_others(furnished, admin: Visitor) -> None:
    db, page = furnished.world.db, await admin.go("/admin/instances/genomics-005")
    frames: list[str] = []
    page.on("websocket", lambda socket: socket.on("framereceived", lambda said: frames.append(str(said))))
    await page.reload()
    await page.wait_for_function("window.did_handshake")
    log = page.get_by_test_id("vm-log")
    await expect(log).to_contain_text("Creation complete")
    await write(db, "genomics-006", "workload", ["of another machine"])
    await write(db, "genomics-005", "workload", ["the model is loaded", "WARNING it is warm"])
    await expect(log).to_contain_text("the model is loaded")
    await expect(log.locator(".warn-line .level")).to_have_text("warning")
    assert "of another machine" not in " ".join(frames)
    # Terraform speaks of it too.
    (operation,) = (each for each in await list_operations(db) if "genomics-005" in each.hostnames)
    said = [f'terraform_data.vm["genomics-00{number}"]: looked at' for number in (6, 5)]
    await record_log(db, operation.id, [LogLine(db.now(), "info", each) for each in said])
    await expect(log).to_contain_text(said[1])
    assert said[0] not in await log.inner_text()
    assert admin.errors == []


async def test_a_log_is_searched_and_filtered_by_keyboard(furnished, admin: Visitor) -> None:
    page = await admin.go("/admin/instances/genomics-001")
    search, count = page.get_by_test_id("vm-log-search"), page.get_by_test_id("vm-log-count")
    await expect(page.get_by_test_id("vm-log")).to_contain_text("… 12,345 lines left out …")
    await search.fill("LOSS")
    await expect(count).to_have_text("2 matches")
    assert await lines_of(page) == ["INFO epoch 1 of 90, loss 2.31", "WARNING loss is nan, step skipped"]
    await expect(page.locator(".log mark")).to_have_text(["loss", "loss"])
    await search.press("Enter")
    await expect(count).to_have_text("1 of 2")
    await search.press("Enter")
    await expect(page.locator(".log .here")).to_contain_text("nan")
    await search.press("Shift+Enter")
    await expect(page.locator(".log .here")).to_contain_text("epoch 1")
    await page.get_by_label("Only matches").uncheck()
    await expect(page.get_by_test_id("vm-log")).to_contain_text("DEBUG loader")
    await expect(page.locator(".log mark")).to_have_count(2)
    await search.press("Escape")
    await page.get_by_test_id("vm-log-level").select_option("error")
    assert await lines_of(page) == ["ERROR CUDA out of memory: tried to allocate 2.00 GiB"]
    await page.get_by_test_id("vm-log-level").select_option("")
    await page.get_by_test_id("vm-log-source").select_option("startup script")
    assert await lines_of(page) == ["Fetching reference genome …", "done in 41 s"]
    await expect(count).to_contain_text("2 of ")
    assert admin.errors == []


async def test_twenty_thousand_lines_are_a_few_hundred_in_the_page_and_hold_still_while_one_reads(
    furnished, admin: Visitor
) -> None:
    db = furnished.world.db
    vm = await get_vm(db, "genomics-007")
    lines = [f"number {number}" for number in range(MANY + 5_000)]
    batches = [LogBatch(vm.id, "workload", lines[start : start + 1_000]) for start in range(0, len(lines), 1_000)]
    await record_vm_logs(db, batches)
    page = await admin.go("/admin/instances/genomics-007")
    log, follow = page.get_by_test_id("vm-log"), page.get_by_test_id("vm-log-follow")
    await expect(log).to_contain_text(f"number {len(lines) - 1}", timeout=20_000)
    assert await page.locator(".log .line").count() <= LONGEST_DOM
    await page.get_by_test_id("vm-log-search").fill("number 2499")
    await expect(page.get_by_test_id("vm-log-count")).to_have_text("10 matches")
    await page.get_by_test_id("vm-log-search").fill("")

    await log.focus()
    await page.keyboard.press("Home")
    await expect(follow).to_have_attribute("aria-pressed", "false")
    await write(db, "genomics-007", "workload", ["news"])
    await expect(follow).to_have_text("Follow (1 new)")
    await expect(log).not_to_contain_text("news")
    # Whoever goes on to the beginning comes to it, a window at a time.
    first = page.locator(".log .line").first
    for _ in range(4):
        before = await first.inner_text()
        await page.keyboard.press("Home")
        await expect(first).not_to_have_text(before)
        assert await page.locator(".log .line").count() <= LONGEST_DOM
    await follow.press("Enter")
    await expect(follow).to_have_text("Following")
    await expect(log).to_contain_text("news")
    assert admin.errors == []


async def test_the_log_of_a_machine_that_is_gone_is_found_from_its_events_and_saved_as_text(
    furnished, admin: Visitor
) -> None:
    page = await admin.go("/admin/events")
    await page.get_by_test_id("events-search").fill("vision-003 is destroyed")
    event = page.locator("tbody tr[data-status] a")
    await expect(event).to_have_count(1)
    await event.click()
    await page.wait_for_url("**/admin/instances/vision-003?vm=*")
    await expect(page.get_by_test_id("vm-log")).to_contain_text("the last words of a machine")
    async with page.expect_download() as downloading:
        await page.get_by_test_id("vm-log-download").click()
    download = await downloading.value
    assert download.suggested_filename.startswith("lablink-vision-003-")
    assert download.suggested_filename.endswith(".log")
    content = (await download.path()).read_text()
    assert "INFO  workload the last words of a machine\n" in content
    assert 'INFO  terraform terraform_data.vm["vision-003"]' in content or "terraform" not in content


async def test_logs_are_files_by_api_for_those_who_may_look(furnished) -> None:
    server = furnished.server
    async with server.client() as stranger:
        for path in ("/api/admin/instances/genomics-001/log", "/api/admin/operations/1/log"):
            assert (await stranger.get(path)).status_code == 401
            assert (await server.api.get(path)).status_code == 200
        gone = await stranger.get("/admin/instances/genomics-001/log.txt", follow_redirects=False)
        assert gone.headers["location"].startswith("/login")
    answer = await server.api.get("/api/admin/instances/genomics-001/log")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert " ERROR workload ERROR CUDA out of memory" in answer.text
    assert "… 12,345 lines left out …" in answer.text
    vm = await get_vm(furnished.world.db, "genomics-002")
    for path in ("/api/admin/instances/nowhere/log", f"/api/admin/instances/genomics-001/log?vm={vm.id}"):
        assert (await server.api.get(path)).status_code == 404
    wanted = json.loads((await server.api.get("/api/openapi.json")).text)["paths"]
    assert "/api/admin/instances/{hostname}/log" in wanted
