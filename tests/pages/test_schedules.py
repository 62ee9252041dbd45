"""Classes and budgets as people use them: made on the page, begun by the server, extended, stopped by the fuse."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from playwright.async_api import Browser, Page, expect
from sqlalchemy import text

from backend.services.operations import list_operations
from tests.harness.pages import Visitor, visit
from tests.harness.pools import database_of, make_pool
from tests.harness.server import API_TOKEN, Server

HEADERS = {"Authorization": f"Bearer {API_TOKEN}"}


@pytest.fixture
async def admin(browser: Browser, shared_server: Server) -> AsyncIterator[Visitor]:
    visitor = await (await visit(browser, shared_server)).sign_in()
    yield visitor
    await visitor.context.close()


async def make_schedule(page: Page, pool: str, begins: datetime) -> None:
    await page.get_by_test_id("schedule-name").fill(f"Class of {pool}")
    await page.get_by_test_id("schedule-pool").select_option(pool)
    await page.get_by_test_id("schedule-count").fill("2")
    await page.get_by_test_id("schedule-zone").select_option("UTC")
    await page.get_by_test_id("schedule-starts").fill(f"{begins:%H:%M}")
    await page.get_by_test_id("schedule-stops").fill(f"{begins + timedelta(hours=3):%H:%M}")
    for day in ("sat", "sun"):
        await page.get_by_test_id(f"schedule-{day}").check()
    await page.get_by_test_id("schedule-submit").click()


async def test_a_class_made_on_the_page_has_its_machines_before_it_begins_and_is_extended_by_one_click(
    browser: Browser, admin: Visitor, shared_server: Server
) -> None:
    await make_pool(shared_server, "classes")
    begins = datetime.now(UTC) + timedelta(minutes=5)
    page = await admin.go(f"/admin/schedules?week={begins:%Y-%m-%d}")
    await page.get_by_test_id("schedule-skips").fill("2027-05-01\nChristmas")
    await make_schedule(page, "classes", begins)
    await expect(page.get_by_test_id("schedule-submit-error")).to_contain_text("Line 2 is no date")
    await page.get_by_test_id("schedule-skips").fill("2027-05-01")
    await make_schedule(page, "classes", begins)
    running = page.locator("[data-testid^=class-][data-status=running]", has_text="Class of classes")
    await expect(running).to_have_count(1, timeout=30_000)
    await expect(running).to_contain_text(f"{begins:%H:%M} to {begins + timedelta(hours=3):%H:%M}")
    await running.get_by_role("button").click()
    await expect(running).to_contain_text(f"{begins:%H:%M} to {begins + timedelta(hours=4):%H:%M}")
    await admin.go("/admin/instances")
    await admin.sees_status("vm-classes-001", "available", within_s=60)
    await admin.sees_status("vm-classes-002", "available", within_s=60)
    await the_class_ends_soon(browser, shared_server)
    async with database_of(shared_server) as db:
        launches = [each for each in await list_operations(db) if each.pool == "classes"]
    assert [each.requested_by for each in launches] == ["rule:schedule"]
    await admin.go("/admin/schedules")
    row = page.get_by_role("listitem").filter(has_text="Class of classes").filter(has=page.get_by_text("Remove"))
    await row.get_by_role("button", name="Pause").click()
    await expect(row.get_by_text("Paused", exact=True)).to_be_visible()
    await row.get_by_role("button", name="Remove").click()
    await page.get_by_test_id("confirm-submit").click()
    await expect(row).to_have_count(0)
    assert admin.errors == []


async def the_class_ends_soon(browser: Browser, server: Server) -> None:
    """Who sits in a class is told that it ends, and keeps the seat by one click."""
    researcher = await visit(browser, server)
    page = await researcher.go("/join/classes")
    await page.get_by_test_id("claim-email").fill("ada@lab.org")
    await page.get_by_test_id("claim-submit").click()
    await researcher.sees_status("seat-status", "active")
    await expect(page.get_by_test_id("seat-warning")).to_be_empty()
    async with database_of(server) as db, db.transaction() as session:
        soon = "UPDATE schedule_runs SET stops_at = now() + interval '14 minutes' WHERE status = 'running'"
        await session.execute(text(soon))
    await expect(page.get_by_test_id("seat-warning")).to_contain_text("The class ends soon", timeout=20_000)
    await expect(page.get_by_test_id("seat-extend")).to_have_text("Stay 1 hour from now")
    await page.get_by_test_id("seat-extend").click()
    await expect(page.get_by_test_id("seat-warning")).to_be_empty()
    assert researcher.errors == []


@pytest.mark.long
async def test_the_fuse_opens_within_a_minute_of_the_budgets_end_and_an_admin_lifts_it(
    admin: Visitor, shared_server: Server
) -> None:
    await make_pool(shared_server, "dear", price_per_hour=900.0)
    async with shared_server.client() as client:
        body = {"pool": "dear", "count": 1}
        assert (await client.post("/api/admin/create", json=body, headers=HEADERS)).status_code == 202
        page = await admin.go("/admin/schedules")
        await page.get_by_test_id("budget-pool").select_option("dear")
        # Two seconds' worth.
        await page.get_by_test_id("budget-dollars").fill("0.5")
        await page.get_by_test_id("budget-submit").click()
        begun_at = time.monotonic()
        await admin.sees_status("budget-dear", "fused", within_s=62)
        assert time.monotonic() - begun_at < 62
        refused = await client.post("/api/admin/create", json=body, headers=HEADERS)
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "budget_spent")
        await admin.go("/admin/create?pool=dear")
        await expect(page.get_by_test_id("launch-error")).to_contain_text("The budget of pool 'dear' ($0.50) is spent")
        await admin.go("/admin/schedules")
        await page.get_by_test_id("budget-lift-dear").click()
        await page.get_by_test_id("confirm-submit").click()
        await admin.sees_status("budget-dear", "lifted")
        assert (await client.post("/api/admin/create", json=body, headers=HEADERS)).status_code == 202
    assert admin.errors == []


async def test_schedules_and_budgets_by_api(shared_server: Server) -> None:
    await make_pool(shared_server, "by-api", max=5)
    body = {
        "pool": "by-api", "name": "Winter school", "zone": "Europe/Berlin", "weekdays": [0, 2], "count": 3,
        "starts": "09:00", "stops": "18:00", "first_on": "2098-01-06", "skips": ["2098-01-08"],
    }  # fmt: skip
    async with shared_server.client() as client:
        far = await client.post("/api/admin/schedules", json=body, headers=HEADERS)
        assert (far.status_code, far.json()["error"]["code"]) == (422, "no_class")
        first_on = (datetime.now(UTC) + timedelta(days=30)).date()
        made = await client.post("/api/admin/schedules", json=body | {"first_on": str(first_on)}, headers=HEADERS)
        assert made.status_code == 201
        schedule = made.json()
        assert (schedule["weekdays"], schedule["starts"], schedule["skips"]) == ([0, 2], "09:00:00", ["2098-01-08"])
        listed = (await client.get("/api/admin/schedules", headers=HEADERS)).json()["schedules"]
        assert schedule in listed
        gone = [await client.delete(f"/api/admin/schedules/{schedule['id']}", headers=HEADERS) for _ in range(2)]
        assert [each.status_code for each in gone] == [204, 404]
        put = await client.put("/api/admin/budgets/by-api", json={"dollars": 25.5}, headers=HEADERS)
        assert (put.json()["dollars"], put.json()["fused"]) == (25.5, False)
        assert (await client.post("/api/admin/budgets/by-api/lift", headers=HEADERS)).status_code == 409
        assert (await client.delete("/api/admin/budgets/by-api", headers=HEADERS)).status_code == 204
