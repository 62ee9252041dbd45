"""Postgres goes away under load and comes back: pages say so, agents wait, nothing is lost."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from playwright.async_api import Browser, expect

from backend.db.embedded import EmbeddedPostgres
from tests.harness.agents import join
from tests.harness.pages import visit
from tests.harness.waiting import until

OUTAGE_S = 20


async def test_20_seconds_without_postgres_lose_nothing(start_server, browser: Browser, tmp_path_factory) -> None:
    home: Path = tmp_path_factory.mktemp("outage")
    postgres = EmbeddedPostgres(home)
    server = await start_server(database_url=await postgres.start())
    _, names = await server.launch(3)
    await server.until_status(names, "available")
    admin = await (await visit(browser, server)).sign_in()
    await admin.go("/admin/instances")
    async with server.client() as client:
        agents = await join(server, client, 30)
        stop = asyncio.Event()
        load = asyncio.create_task(keep_beating(agents, stop))
        claims = asyncio.create_task(keep_claiming(client, stop))
        pids = server.vms.list_running()

        await postgres.stop()
        began = time.monotonic()
        await expect(admin.page.locator(".banner.stale")).to_be_visible(timeout=5_000)
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/healthz")).status_code == 200
        refused = await client.post("/api/request_vm", json={"email": "x@lab.org", "pool": "default"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
        await until(lambda: time.monotonic() - began > OUTAGE_S, within_s=OUTAGE_S + 5)

        await EmbeddedPostgres(home).start()
        back = time.monotonic()
        await server.ready(within_s=10)
        await expect(admin.page.locator(".banner.stale")).to_be_hidden(timeout=5_000)
        answer = await until(lambda: claimed(client, "after@lab.org"), within_s=5)
        hostname = answer.json()["hostname"]
        await admin.sees_status(f"vm-{hostname}", "in-use", within_s=5)
        assert time.monotonic() - back < 5.0 + 1.0
        stop.set()
        promised = await claims
        await load

    vms = await server.list_vms()
    assert server.vms.list_running() == pids
    assert server.process.poll() is None
    held = {vm["email"]: name for name, vm in vms.items() if vm["email"]}
    # Every seat that was promised is there, and nobody sits twice.
    assert promised
    assert promised.items() <= held.items()
    assert all(vm["unreachable_since"] is None for vm in vms.values())


async def claimed(client, email: str):
    answer = await client.post("/api/request_vm", json={"email": email, "pool": "default"})
    return answer if answer.status_code == 201 else None


async def keep_beating(agents, stop: asyncio.Event) -> None:
    """Heartbeats all the time, as 600 machines would send them."""
    while not stop.is_set():
        for agent in agents:
            answer = await agent.beat()
            assert answer.status_code in {200, 503}, answer.text


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
