"""gpus: a GPU breaks under a real agent, as NVML tells of it; nobody's hand mends it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import asynccontextmanager
from typing import Any

from backend.services.repairs import list_repairs
from backend.services.vms import get_vm
from backend.states import RepairOutcome, Rung
from tests.harness.agents import make_tokens
from tests.harness.machines import Machine
from tests.harness.pools import database_of
from tests.harness.server import Server
from tests.harness.waiting import until
from tests.soak.rounds import Round, Scenario

MENDED_S = 120
SETTINGS = (
    "agent.heartbeat_interval_s=1",
    "agent.unreachable_after_s=10",
    "healing.after_s=1",
    "healing.pause_s=1",
    "healing.restart_s=30",
    "healing.reboot_s=60",
    # What is over is over at once.
    "health.settle_s=0",
)
# Each as the driver tells of it: a GPU that fell off the bus, and the two ways to hear of errors in its memory.
FAULTS: Sequence[dict[str, Any]] = ({"lost": True}, {"xids": [79]}, {"xids": [48]})


async def play(game: Round) -> None:
    """Two machines with a GPU each; one of them breaks."""
    fault = game.luck.choice(FAULTS)
    server = Server(game.directory / "home", *SETTINGS)
    machines: list[Machine] = []
    try:
        await server.start()
        for number, token in enumerate(await make_tokens(server, 2)):
            hostname = f"gpu-{number}"
            made = Machine(game.directory, hostname, server_url=server.url, token=token, gpus=1)
            machines.append(made.boot())
        await server.until_status([each.hostname for each in machines], "available")
        async with _kept(machines):
            await _play(game, server, machines, fault)
        assert await server.stop() == 0
    finally:
        for each in machines:
            each.close()
        await server.close()


async def _play(game: Round, server: Server, machines: Sequence[Machine], fault: dict[str, Any]) -> None:
    ill, well = game.luck.sample(machines, k=2)
    ill.break_(gpus=[fault])
    game.say(f"{ill.hostname} breaks: {fault}")
    vms = await server.until_status([ill.hostname], "failed")
    assert "GPU 0" in vms[ill.hostname]["reason"], vms[ill.hostname]["reason"]
    async with server.client() as client, database_of(server) as db:
        answers = [
            await client.post("/api/request_vm", json={"email": f"p{number}@lab.org", "pool": "default"})
            for number in range(2)
        ]
        first, second = (answer.json() for answer in answers)
        assert first["hostname"] == well.hostname, first
        # The broken one is offered to nobody, though somebody waits.
        assert second["status"] == "waiting", second
        game.say(f"off the offer: {first['hostname']} is given, and then nothing")

        async def is_mended() -> bool:
            vm = (await server.list_vms())[ill.hostname]
            assert vm["status"] == "in-use", (vm["status"], vm["reason"])
            return vm["email"] == "p1@lab.org"

        await until(is_mended, within_s=MENDED_S, every_s=0.2, what="it is mended, and given to who waits")
        vm_id = (await get_vm(db, ill.hostname)).id

        async def is_settled() -> bool:
            tried = [(each.rung, each.outcome) for each in await list_repairs(db, vm_id)]
            assert tried == [(Rung.REBOOT, RepairOutcome.SUCCEEDED), (Rung.RESTART, RepairOutcome.FAILED)], tried
            return True

        await until(is_settled, what="one rung after the other is written down")
    assert (ill.boots, well.boots) == (2, 1)
    game.say("mended up the ladder, by a reboot, and back")


@asynccontextmanager
async def _kept(machines: Sequence[Machine]):
    """Meanwhile machines boot as their agents ask for it."""

    async def keep() -> None:
        while True:
            for each in machines:
                each.keep()
            await asyncio.sleep(0.1)

    keeping = asyncio.create_task(keep())
    try:
        yield
    finally:
        keeping.cancel()


GPUS = Scenario("gpus", 3, "a GPU breaks as NVML tells of it: failed by rule, off the offer, mended, back", play)
