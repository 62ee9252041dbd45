"""The whole job, as people do it: launch, watch, claim, come back, give back, destroy."""

from __future__ import annotations

import time

import psycopg
import pytest
from playwright.async_api import Browser, expect

from backend.db.embedded import EmbeddedPostgres
from tests.alone import Alone
from tests.harness.pages import visit
from tests.harness.pools import make_pool
from tests.harness.server import Server, gather_all
from tests.harness.waiting import until

# In the page: when each row showed each state first, by the browser's clock (the same machine's as the database's).
WATCH = """() => {
  window.seen = {};
  const look = () => document.querySelectorAll("tr[data-testid^=vm-]").forEach((row) => {
    const key = row.dataset.testid.slice(3) + " " + row.dataset.status;
    window.seen[key] ??= Date.now();
  });
  new MutationObserver(look).observe(document.body, { subtree: true, childList: true, attributes: true });
}"""


@pytest.mark.parametrize("count", [5, pytest.param(20, marks=pytest.mark.long)])
async def test_machines_launched_from_the_page_are_seen_step_by_step_on_another_within_a_second(
    start_server, browser: Browser, alone: Alone, count: int
) -> None:
    server = await start_server()
    admin, watcher, researcher = await gather_all(*(visit(browser, server) for _ in range(3)))
    await gather_all(admin.sign_in_by_form(), watcher.sign_in())
    await watcher.go("/admin/instances")
    await watcher.page.evaluate(WATCH)
    loads: list[str] = []
    watcher.page.on("framenavigated", lambda frame: loads.append(frame.url))

    await admin.go("/admin/create")
    await admin.page.get_by_test_id("launch-count").fill(str(count))
    await researcher.go("/join/default")
    await researcher.page.get_by_test_id("claim-email").fill("ada@lab.org")
    names = [f"default-{number:03d}" for number in range(1, count + 1)]
    async with alone():
        await admin.page.get_by_test_id("launch-submit").click()
        await admin.page.wait_for_url("**/admin/operations/*")
        await expect(watcher.page.locator('tr[data-status="available"]')).to_have_count(count, timeout=60_000)
        await admin.sees_status("operation-status", "succeeded")
        await expect(admin.page.get_by_test_id("operation-log")).to_contain_text(f"{count} added")

        await researcher.page.get_by_test_id("claim-submit").click()
        await researcher.page.wait_for_url("**/seat")
        await researcher.sees_status("seat-status", "active")
        hostname = await researcher.page.get_by_test_id("seat-hostname").inner_text()
        assert hostname in names
        await watcher.sees_status(f"vm-{hostname}", "in-use")
    await expect(watcher.page.get_by_test_id(f"vm-{hostname}")).to_contain_text("ada@lab.org")
    await admin.go(f"/admin/instances/{hostname}")
    await admin.sees_status(f"vm-{hostname}", "in-use")

    assert loads == []
    await check_every_step_was_seen_in_time(server, await watcher.page.evaluate("window.seen"))
    assert [each.errors for each in (admin, watcher, researcher)] == [[], [], []]


async def check_every_step_was_seen_in_time(server, seen: dict[str, int]) -> None:
    url = await EmbeddedPostgres(server.home).start()
    async with await psycopg.AsyncConnection.connect(url) as connection:
        rows = await connection.execute(
            "SELECT message, extract(epoch FROM at) * 1000 FROM events WHERE kind IN ('vm.available', 'vm.in-use')"
        )
        late = {}
        for message, at in await rows.fetchall():
            hostname, _, rest = message.partition(" is ")
            shown = seen.get(f"{hostname} {rest.partition(':')[0]}")
            # A state may be over before the next tick; those that last are seen.
            if shown is None or shown - float(at) > 1_000:
                late[message] = shown and shown - float(at)
    assert not late


async def test_the_same_seat_after_closing_the_browser_and_back_in_line_for_the_next(
    shared_server: Server, browser: Browser
) -> None:
    server, pool = shared_server, await make_pool(shared_server, "again", max=1)
    _, (hostname,) = await server.launch(1, pool)
    await server.until_status([hostname], "available")
    first, second = await gather_all(visit(browser, server), visit(browser, server))
    for person, email in ((first, "ada@lab.org"), (second, "bob@lab.org")):
        await person.go("/")
        await person.page.get_by_test_id("join-code").fill(pool)
        await person.page.get_by_test_id("join-submit").click()
        await person.page.wait_for_url(f"**/join/{pool}")
        await person.page.wait_for_function("window.did_handshake")
        await person.page.get_by_test_id("claim-email").fill(email)
        await person.page.get_by_test_id("claim-submit").click()
        await person.page.wait_for_url("**/seat")
    await first.sees_status("seat-status", "active")
    await second.sees_status("seat-status", "waiting")
    await expect(second.page.get_by_test_id("seat-position")).to_have_text("1")

    # The browser is closed and opened again: its cookies are all that is left.
    kept = await first.context.storage_state()
    await first.context.close()
    again = await visit(browser, server, storage_state=kept)
    await again.go(f"/join/{pool}")
    await again.page.wait_for_url("**/seat")
    await expect(again.page.get_by_test_id("seat-hostname")).to_have_text(hostname)
    await again.page.get_by_test_id("seat-release").click()
    began = time.monotonic()
    await again.page.get_by_test_id("confirm-submit").click()
    await again.sees_status("seat-status", "released")
    # Let in without another click.
    await second.sees_status("seat-status", "active", within_s=10)
    assert time.monotonic() - began < 10
    await expect(second.page.get_by_test_id("seat-hostname")).to_have_text(hostname)


async def test_destroying_one_of_four_leaves_the_other_three_untouched(shared_server: Server, browser: Browser) -> None:
    server, pool = shared_server, await make_pool(shared_server, "few", max=4)
    _, names = await server.launch(4, pool)
    await server.until_status(names, "available")
    before = server.vms.list_running()
    assert set(names) <= set(before)
    admin = await (await visit(browser, server)).sign_in()
    await admin.go("/admin/destroy")
    await admin.page.wait_for_url("**/admin/instances?destroy=1")
    await admin.page.wait_for_function("window.did_handshake")
    row = admin.page.get_by_test_id("vm-few-003")
    await row.get_by_role("checkbox").check()
    await admin.page.get_by_test_id("vm-action-destroy").click()
    await admin.page.get_by_test_id("confirm-cancel").click()
    await admin.page.get_by_test_id("vm-action-destroy").click()
    await admin.page.get_by_test_id("confirm-submit").click()
    await expect(row).to_have_count(0, timeout=20_000)
    del before["few-003"]
    assert server.vms.list_running() == before
    assert not (server.home / "vms" / "few-003").exists()


async def test_a_page_left_open_over_a_restart_of_the_server_becomes_true_without_a_reload(
    start_server, browser: Browser
) -> None:
    # One alone, in any case: of two the other would go on serving the page.
    server = await start_server(verb="serve")
    admin = await (await visit(browser, server)).sign_in()
    await admin.go("/admin/instances")
    await expect(admin.page.get_by_text("No machines yet")).to_be_visible()
    server.kill()
    await expect(admin.page.locator(".banner.offline")).to_be_visible(timeout=10_000)
    await server.start()
    _, (hostname,) = await server.launch(1)
    await admin.sees_status(f"vm-{hostname}", "available")
    await expect(admin.page.locator(".banner.offline")).to_be_hidden()


async def test_a_demo_rests_its_machines_and_wakes_them_with_seats_kept(start_server) -> None:
    server = await start_server(verb="demo")
    _, names = await server.launch(2)
    await server.until_status(names, "available")
    async with server.client() as client:
        claimed = await client.post("/api/request_vm", json={"email": "ada@lab.org", "pool": "default"})
        hostname = claimed.json()["hostname"]
    boots = {name: vm["boot_id"] for name, vm in (await server.list_vms()).items()}
    server.process.terminate()
    server.process.terminate()
    assert await server.stop() == 0
    assert server.vms.list_running() == {}

    began = time.monotonic()
    await server.start()
    assert time.monotonic() - began < 15

    async def awake() -> bool:
        vms = await server.list_vms()
        return all(vms[name]["boot_id"] != boots[name] for name in names)

    await until(awake, what="every machine booted again")
    vms = await server.list_vms()
    assert (vms[hostname]["status"], vms[hostname]["email"]) == ("in-use", "ada@lab.org")
    assert await server.stop() == 0
