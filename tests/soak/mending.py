"""mending: agents die, machines are broken, the server is killed in the middle; nobody's hand mends anything."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from typing import Any

import psutil

from tests.harness.server import Server
from tests.harness.waiting import until
from tests.soak.rounds import Round, Scenario

MENDED_S = 120
SETTINGS = (
    "agent.heartbeat_interval_s=1",
    "agent.unreachable_after_s=4",
    "pool.default.max=8",
    # A server that was killed is heard of again within less.
    "pool.default.boot_deadline_s=30",
    "pool.default.unreachable_grace_s=30",
    "healing.after_s=1",
    "healing.pause_s=1",
    "healing.restart_s=20",
    "healing.reboot_s=20",
    "healing.seat_grace_s=40",
)


async def play(game: Round) -> None:
    """One server, four machines and one seat."""
    # While this is there, the machines cannot be prepared.
    broken = game.directory / "broken"
    server = Server(game.directory / "home", *SETTINGS, f"pool.default.startup_script='test ! -e {broken}'")
    try:
        await server.start()
        await _play(game, server, broken.touch, broken.unlink)
        assert await server.stop() == 0
    finally:
        await server.close()


async def _play(game: Round, server: Server, break_it: Callable[[], None], mend_it: Callable[[], None]) -> None:
    _, names = await server.launch(4)
    vms = await server.until_status(names, "available")
    async with server.client() as client:
        answer = await client.post("/api/request_vm", json={"email": "ada@lab.org", "pool": "default"})
        seat = answer.json()["hostname"]
    free = sorted(set(names) - {seat})
    dead, lost, other = game.luck.sample(free, k=3)
    await server.until_status([seat], "in-use")
    boots = {name: vm["boot_id"] for name, vm in vms.items()}

    _kill(server, dead, seat)
    _kill(server, lost)
    # Without what it was made of, no reboot helps.
    shutil.rmtree(server.vms.root / lost)
    game.say(f"dead: {dead}; dead for good: {lost}; dead under a seat: {seat}")
    await _until(server, lambda vms: vms[dead]["status"] == "booting", "a reboot begins")
    server.kill()
    await server.start()
    game.say("the server was killed in the middle, and is back")
    vms = await _until(server, lambda vms: vms[dead]["status"] in {"available", "in-use"}, "the dead is back")
    assert vms[dead]["boot_id"] != boots[dead], "it is the same boot"
    assert (server.vms.root / dead / "home").is_dir()
    vms = await _until(server, lambda vms: lost not in vms and "default-005" in vms, "another one is in its place")
    await server.until_status(["default-005"], "available", "in-use", within_s=MENDED_S)
    vms = await _until(server, lambda vms: vms[seat]["status"] == "quarantined", "the seat has moved on")
    (moved,) = [name for name, vm in vms.items() if vm["email"] == "ada@lab.org"]
    assert (server.vms.root / seat / "home").is_dir(), "what the seat left behind is gone"
    assert vms[other]["boot_id"] == boots[other], "a machine that was well was touched"
    game.say(f"{dead} booted again, {lost} was replaced, the seat moved to {moved}")

    # A machine whose preparation fails is prepared anew, once what was in its way is gone.
    break_it()
    answer = await server.api.post("/api/admin/create", json={"pool": "default", "count": 1})
    (late,) = answer.json()["hostnames"]
    await _until(server, lambda vms: vms[late]["status"] == "failed", "it fails")
    mend_it()
    vms = await _until(server, lambda vms: vms[late]["status"] == "available", "it is prepared anew")
    game.say(f"{late} could not be prepared, and was")


def _kill(server: Server, *hostnames: str) -> None:
    running = server.vms.list_running()
    for hostname in hostnames:
        psutil.Process(running[hostname]).kill()


async def _until(server: Server, holds: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
    async def look() -> dict[str, Any]:
        vms = await server.list_vms()
        assert holds(vms), {name: (vm["status"], vm["reason"]) for name, vm in vms.items()}
        return vms

    found: Awaitable[dict[str, Any]] = until(look, within_s=MENDED_S, every_s=0.2, what=what)
    return await found


MENDING = Scenario("mending", 5, "agents die, machines break, the server is killed; all is mended by itself", play)
