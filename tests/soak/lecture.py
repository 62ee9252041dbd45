"""class: a lecture hall on its first morning, and then three times as fast until something gives."""

from __future__ import annotations

import time
from typing import Any

from backend.services.claims import list_claims
from lablink_ui.bench.arrivals import run_swarm
from tests.harness.pools import database_of
from tests.harness.server import API_TOKEN, PASSWORD, Server
from tests.harness.waiting import until
from tests.soak.rounds import Round, Scenario
from tests.soak.truth import list_violations

RECOVERED_S, PAGE_S = 10, 1.0
# Slower than this at the click, and a hall would murmur: it has given.
GIVEN_MS = 10_000
STEPS, TIMES = 3, 3
CALM, PATIENT = "30 s", "10 min"


async def play(game: Round, machines: int = 500, people: int = 450, within_s: int = 480, pages: int = 200) -> None:
    """One class as it is promised, then steps of three times the rate."""
    settings = (f"pool.default.max={machines}", "agent.heartbeat_interval_s=20", "server.metrics=true")
    server = Server(game.directory / "home", *settings)
    try:
        await server.start()
        class_ = _scenario(machines, people, within_s, pages, CALM)
        report = await _swarm(game, server, class_, "promised")
        assert (report["verdict"], report["in_line"], report["not_back"]) == ("ok", 0, 0), report["reasons"]
        await _recovers(game, server)
        for step in range(1, STEPS + 1):
            # More people than machines, so that a place in line is one way to give; being slow is the other.
            faster = _scenario(machines, TIMES * people, within_s // TIMES ** (step - 1), pages, PATIENT)
            report = await _swarm(game, server, faster, f"{TIMES**step} times as fast")
            assert report["verdict"] == "ok", report["reasons"]
            assert report["seated"] >= min(machines, TIMES * people)
            await _recovers(game, server)
            if (report["click_to_seat_ms"]["p95"] or 0) > GIVEN_MS:
                game.say("it gave, by being slow")
                break
        assert await server.stop() == 0
    finally:
        await server.close()


def _scenario(machines: int, people: int, within_s: int, pages: int, patience: str) -> str:
    return f"""
        agents: {machines}
        arrivals: {people} in {within_s} s
        admin_pages: {pages}
        stay: 20 s
        wifi_off: 1 to 20 s
        patience: {patience}
    """


async def _swarm(game: Round, server: Server, scenario: str, name: str) -> dict[str, Any]:
    directory = game.directory / name.replace(" ", "-")
    directory.mkdir()
    seed = game.luck.randrange(10_000)
    report = await run_swarm(server.url, scenario, directory, token=API_TOKEN, password=PASSWORD, seed=seed)
    game.say(f"{name}: {_describe(report)}")
    return report


def _describe(report: dict[str, Any]) -> str:
    shown, click = report["click_to_machine_ms"], report["click_to_seat_ms"]
    claim, beat = report["claim_ms"], report["heartbeat_ms"]
    return (
        f"{report['verdict']}, {report['seated']} of {report['people']} sat, {report['in_line']} in line,"
        f" {report['errors']} errors, {report['refused_429']} 429s, {report['doubles']} doubles;"
        f" ms p50/p95: click to the machine's name {shown['p50']}/{shown['p95']};"
        f" ms p50/p99: click to seat {click['p50']}/{click['p99']}, claim {claim['p50']}/{claim['p99']},"
        f" heartbeat {beat['p50']}/{beat['p99']}"
    )


async def _recovers(game: Round, server: Server) -> None:
    """Of itself, soon after the load has ended: pages are quick again, nothing is left, everything is true."""
    began = time.monotonic()
    async with database_of(server) as db, server.client() as client:

        async def is_well() -> bool:
            asked = time.monotonic()
            assert (await client.get("/readyz")).status_code == 200
            assert (await client.get("/join/default")).status_code == 200
            took_s = time.monotonic() - asked
            assert took_s < PAGE_S, f"a page took {took_s:.1f} s"
            assert not await server.list_vms()
            assert not await list_claims(db, only_open=True)
            violations = await list_violations(db, running=[], promised={}, in_line=[])
            assert not violations, "; ".join(violations)
            return True

        await until(is_well, within_s=RECOVERED_S, what="all is well again")
    took_s, memory = time.monotonic() - began, (await server.figures())["process_resident_memory_bytes"]
    game.say(f"well again {took_s:.1f} s after its end, with {memory / 2**20:.0f} MB")


CLASS = Scenario(
    "class", 1, "450 people in 8 minutes, 200 pages, 500 machines; then three times as fast, and again", play
)
