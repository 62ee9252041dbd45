"""hour: one class after another for an hour, and nothing grows: what leaks a little today falls on the third day.

The server is looked at after each class, when all have left. Its first classes warm it up; what it holds and how quick
it is must be the same in the last quarter as in the second.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median

from playwright.async_api import async_playwright, expect
from sqlalchemy import text

from backend.db.engine import Database
from lablink_ui.bench.arrivals import run_swarm
from lablink_ui.garbage import QUIET_SHARE, REST_S
from tests.conftest import CHROMIUM, CHROMIUM_FLAGS
from tests.harness.pages import visit
from tests.harness.pools import database_of
from tests.harness.server import API_TOKEN, PASSWORD, Server
from tests.harness.waiting import until
from tests.soak.rounds import Round, Scenario

HOUR_S, EMPTY_S = 3_600.0, 90
CLASS = """
agents: 200
arrivals: 150 in 2 min
admin_pages: 50
stay: 10 s
wifi_losses: 20 %
gives_back: 20 %
"""
# A page that lost its Wi-Fi at the end of a class is kept for so long, and classes come soon after one another.
SETTINGS = ("pool.default.max=500", "server.metrics=true", "server.reconnect_timeout_s=20")
_OTHERS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


@dataclass(frozen=True)
class Look:
    """The server after a class: what it holds when all have left, and how quick it was (ms, p95)."""

    memory_mb: float
    connections: float
    descriptors: float
    tasks: float
    claim_ms: float
    machine_shown_ms: float


# What may be more at the end: so much of it, or so little that it is nothing.
SHARE = Look(memory_mb=0.05, connections=0, descriptors=0, tasks=0, claim_ms=0.5, machine_shown_ms=0.5)
NOTHING = Look(memory_mb=5, connections=3, descriptors=5, tasks=5, claim_ms=25, machine_shown_ms=50)


async def play(game: Round, lasts_s: float = HOUR_S, class_: str = CLASS) -> None:
    """Classes until the time is over, before a page that is open all the while."""
    server = Server(game.directory / "home", *SETTINGS)
    looks: list[Look] = []
    try:
        await server.start()
        async with async_playwright() as playwright, database_of(server) as db:
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(CHROMIUM_FLAGS))
            admin = await (await visit(browser, server)).sign_in()
            page = await admin.go("/admin/instances")
            ends_at = time.monotonic() + lasts_s
            while time.monotonic() < ends_at:
                looks.append(await _hold_class(game, server, db, class_, number=len(looks) + 1))
            _, (name,) = await server.launch(1)
            await expect(page.get_by_test_id(f"vm-{name}")).to_have_attribute(
                "data-status", "available", timeout=30_000
            )
            assert admin.errors == []
            await browser.close()
        assert await server.stop() == 0
    finally:
        await server.close()
    grown = list_grown(looks)
    assert not grown, "; ".join(grown)


def list_grown(looks: Sequence[Look]) -> list[str]:
    """What was more in the last quarter of the looks than in the second, each as a sentence."""
    quarter = len(looks) // 4
    assert quarter, f"after {len(looks)} classes nobody knows whether something grows"
    before, after = _median(looks[quarter : 2 * quarter]), _median(looks[-quarter:])
    share, nothing = asdict(SHARE), asdict(NOTHING)
    return [
        f"{name} grew from {value:.1f} to {after[name]:.1f}"
        for name, value in before.items()
        if after[name] > value + max(share[name] * value, nothing[name])
    ]


def _median(looks: Sequence[Look]) -> dict[str, float]:
    return {name: median(asdict(look)[name] for look in looks) for name in asdict(looks[0])}


async def _hold_class(game: Round, server: Server, db: Database, class_: str, *, number: int) -> Look:
    directory = game.directory / f"class-{number}"
    directory.mkdir()
    seed = game.luck.randrange(10_000)
    report = await run_swarm(server.url, class_, directory, token=API_TOKEN, password=PASSWORD, seed=seed)
    assert report["verdict"] == "ok", report["reasons"]

    async def figures_when_all_have_left() -> dict[str, float]:
        figures = await server.figures()
        assert figures["lablink_pages"] == 1, figures
        assert not await server.list_vms()
        return figures

    await until(figures_when_all_have_left, within_s=EMPTY_S, what="all have left but one page")
    figures = await figures_at_rest(server)
    async with db.transaction() as session:
        connections = int(await session.scalar(text(_OTHERS)) or 0)
    look = Look(
        memory_mb=figures["process_resident_memory_bytes"] / 2**20,
        connections=connections,
        descriptors=figures["process_open_fds"],
        tasks=figures["lablink_asyncio_tasks"],
        claim_ms=report["claim_ms"]["p95"],
        machine_shown_ms=report["click_to_machine_ms"]["p95"],
    )
    game.say(f"class {number}: " + ", ".join(f"{name} {value:.0f}" for name, value in asdict(look).items()))
    return look


async def figures_at_rest(server: Server) -> dict[str, float]:
    """The figures once it has rested for so long that it has given back what the class left free."""
    figures, since = await server.figures(), time.monotonic()
    looked_at = since

    async def has_rested() -> bool:
        nonlocal figures, since, looked_at
        before, figures, now = figures, await server.figures(), time.monotonic()
        worked_s = figures["process_cpu_seconds_total"] - before["process_cpu_seconds_total"]
        if worked_s > QUIET_SHARE * (now - looked_at):
            since = now
        looked_at = now
        return now - since > 2 * REST_S

    await until(has_rested, within_s=EMPTY_S, every_s=2, what="it is at rest")
    return figures


HOUR = Scenario(
    "hour", 1, "one class after another for an hour: what the server holds, and how quick it is, stays", play
)
