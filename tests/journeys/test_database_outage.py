"""Postgres goes away under load and comes back: pages say so, agents wait, nothing is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from backend.db.embedded import EmbeddedPostgres
from tests.alone import Alone
from tests.harness.agents import join
from tests.harness.pages import visit
from tests.harness.processes import find_postmaster, list_processes
from tests.harness.server import Server
from tests.harness.waiting import until

SLOWLY = "terraform.parallelism=1"

BACK_S = 5.0


@pytest.fixture
async def postgres(tmp_path: Path) -> AsyncIterator[EmbeddedPostgres]:
    """A Postgres that is not the server's own: nobody but the test starts it again."""
    (tmp_path / "elsewhere").mkdir()
    embedded = EmbeddedPostgres(tmp_path / "elsewhere")
    yield embedded
    await embedded.stop()


# Longer than the longest pause between two tries to reach it; and so long that a worker counts as dead by then.
@pytest.mark.parametrize(
    ("outage_s", "joined", "count"), [(6, 10, 5), pytest.param(20, 30, 24, marks=pytest.mark.long)], ids=["6s", "20s"]
)
async def test_seconds_without_postgres_lose_nothing(
    start_server, browser: Browser, postgres: EmbeddedPostgres, alone: Alone, outage_s: float, joined: int, count: int
) -> None:
    server = await start_server(SLOWLY, database_url=await postgres.start())
    _, names = await server.launch(2)
    await server.until_status(names, "available")
    admin = await (await visit(browser, server)).sign_in()
    await admin.go("/admin/instances")
    async with server.client() as client, alone():
        agents = await join(server, client, joined)
        launched, more = await server.launch(count)
        await until(lambda: server.count_begun() > 4, every_s=0.01)
        stop = asyncio.Event()
        load = asyncio.create_task(keep_beating(agents, stop))
        claims = asyncio.create_task(keep_claiming(client, stop))

        await postgres.stop()
        began = time.monotonic()
        await expect(admin.page.locator(".banner.stale")).to_be_visible(timeout=5_000)
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/healthz")).status_code == 200
        refused = await client.post("/api/request_vm", json={"email": "x@lab.org", "pool": "default"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
        # Nothing is torn down meanwhile: what Terraform had begun, it finishes.
        await until(lambda: {*names, *more} <= set(server.vms.list_running()), within_s=30, what="all are made")
        await until(lambda: time.monotonic() - began > outage_s, within_s=outage_s + 5)
        assert {*names, *more} <= set(server.vms.list_running())
        pids = server.vms.list_running()

        await postgres.start()
        back = time.monotonic()
        await server.ready(within_s=BACK_S)
        await expect(admin.page.locator(".banner.stale")).to_be_hidden(timeout=5_000)
        answer = await until(lambda: claimed(client, "after@lab.org"), within_s=5)
        await admin.sees_status(f"vm-{answer.json()['hostname']}", "in-use", within_s=5)
        finished = await server.until_operation_ends(launched, within_s=5)
        later, later_names = await server.launch(1)
        await until(lambda: has_begun(server, later), within_s=5)
        assert time.monotonic() - back < BACK_S
        stop.set()
        promised = await claims
        await load

    assert (finished["status"], finished["attempt"]) == ("succeeded", 1)
    vms = await server.until_status([*more, *later_names], "available", "in-use")
    assert pids.items() <= server.vms.list_running().items()
    assert server.process.poll() is None
    held = {vm["email"]: name for name, vm in vms.items() if vm["email"]}
    # Every seat that was promised is there, and nobody sits twice.
    assert promised
    assert promised.items() <= held.items()
    assert all(vm["unreachable_since"] is None for vm in vms.values())


@pytest.mark.long
async def test_the_embedded_postgres_killed_in_a_launch_is_started_again_by_the_server(
    start_server, browser: Browser
) -> None:
    server = await start_server(SLOWLY)
    _, (seat,) = await server.launch(1)
    await server.until_status([seat], "available")
    async with server.client() as client:
        assert (await claimed(client, "ada@lab.org")).json()["hostname"] == seat
    admin = await (await visit(browser, server)).sign_in()
    await admin.go("/admin/instances")
    await admin.sees_status(f"vm-{seat}", "in-use")
    launched, names = await server.launch(4)
    await until(lambda: server.count_begun() >= 3, every_s=0.01)

    killed = find_postmaster(server.home)
    assert killed is not None
    killed.kill()
    await until(lambda: (again := find_postmaster(server.home)) and again.pid != killed.pid, within_s=10)
    began = time.monotonic()
    await server.ready(within_s=BACK_S)
    async with server.client() as client:
        await until(lambda: claimed(client, "bob@lab.org", 202, 201), within_s=BACK_S)
    assert time.monotonic() - began < BACK_S
    finished = await server.until_operation_ends(launched)
    assert (finished["status"], finished["attempt"]) == ("succeeded", 1)
    # The worker hears of new jobs again; its own look every 5 s would be too late for this.
    later, _ = await server.launch(1)
    await until(lambda: has_begun(server, later), within_s=2)
    await server.until_status([seat, *names], "available", "in-use")
    # The page that was open all the time says so too.
    for name in names:
        await admin.sees_status(f"vm-{name}", "available", "in-use", within_s=5)
    await expect(admin.page.locator(".banner.stale")).to_be_hidden()
    assert (await server.list_vms())[seat]["email"] == "ada@lab.org"
    assert server.process.poll() is None
    assert await server.stop() == 0
    assert list_processes(server.home, "postgres") == []


async def has_begun(server: Server, operation_id: int) -> bool:
    return (await server.operation(operation_id))["status"] != "queued"


async def claimed(client, email: str, *codes: int):
    answer = await client.post("/api/request_vm", json={"email": email, "pool": "default"})
    return answer if answer.status_code in (codes or {201}) else None


async def keep_beating(agents, stop: asyncio.Event) -> None:
    """Fifty heartbeats a second, as a thousand machines would send them."""
    while not stop.is_set():
        for agent in agents:
            answer = await agent.beat()
            assert answer.status_code in {200, 503}, answer.text
            await asyncio.sleep(0.02)


async def keep_claiming(client, stop: asyncio.Event) -> dict[str, str]:
    """A claim now and then; returns what was promised by a 201."""
    promised = {}
    for number in range(12):
        email = f"load{number}@lab.org"
        answer = await until(lambda email=email: claimed(client, email), within_s=60, every_s=0.5)
        promised[email] = answer.json()["hostname"]
        if stop.is_set():
            break
        await asyncio.sleep(0.3)
    return promised
