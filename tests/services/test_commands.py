"""Commands: what an agent gets when it asks, alone or with all others, and how long it waits for more."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from backend.db.engine import Database
from backend.live import command_waits
from backend.live.command_waits import CommandWaits
from backend.services import commands, vms
from backend.services.commands import expire_commands, list_commands_for_agent
from backend.services.destroys import request_destroy
from backend.services.vms import list_vms
from backend.states import CommandKind
from tests.conftest import Clock
from tests.harness.waiting import until
from tests.services.worlds import ADMIN, Listener, make_machines, obey


async def kinds_of(db: Database, vm_id: int) -> list[CommandKind]:
    return [command.kind for command in await list_commands_for_agent(db, vm_id)]


async def test_agents_that_ask_together_get_each_their_own(db: Database) -> None:
    ids = [machine.vm_id for machine in await make_machines(db, 5)]
    await request_destroy(db, ["lab-m1", "lab-m3"], actor=ADMIN)
    expected = [[], [CommandKind.STOP], [], [CommandKind.STOP], []]
    assert await asyncio.gather(*(kinds_of(db, vm_id) for vm_id in ids)) == expected
    # Until there is a result they get it again; and then no more.
    assert await asyncio.gather(*(kinds_of(db, vm_id) for vm_id in ids)) == expected
    await obey(db, ids[1])
    assert await kinds_of(db, ids[1]) == []


async def test_what_expires_while_it_is_looked_at_is_not_delivered(
    db: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    (machine,) = await make_machines(db, 1)
    await request_destroy(db, ["lab-m0"], actor=ADMIN)
    find = commands._find_open

    async def find_and_expire(*asked: Any) -> Any:
        found = await find(*asked)
        clock.advance(86_400)
        await expire_commands(db)
        return found

    monkeypatch.setattr(commands, "_find_open", find_and_expire)
    assert await kinds_of(db, machine.vm_id) == []


async def test_a_poll_outlives_the_end_of_a_command_and_hears_the_next(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    (machine,) = await make_machines(db, 1)
    looks: list[Any] = []

    async def look(*asked: Any) -> Any:
        looks.append(await list_commands_for_agent(*asked))
        return looks[-1]

    monkeypatch.setattr(command_waits, "list_commands_for_agent", look)
    listener = Listener()
    poll = asyncio.create_task(CommandWaits(db, listener).wait(machine.vm_id, wait_s=50))
    await until(lambda: looks == [[]], what="there is nothing to do")
    listener.say("commands", machine.vm_id)
    await until(lambda: looks == [[], []], what="there is still nothing to do")
    await request_destroy(db, ["lab-m0"], actor=ADMIN)
    listener.say("commands", machine.vm_id)
    assert [command.kind for command in await poll] == [CommandKind.STOP]


async def test_who_waits_is_let_go_when_the_server_stops(db: Database) -> None:
    (machine,) = await make_machines(db, 1)
    waits = CommandWaits(db, Listener())
    poll = asyncio.create_task(waits.wait(machine.vm_id, wait_s=50))
    await until(lambda: waits._waiting, what="the agent waits")
    waits.close()
    assert await poll == []
    assert await waits.wait(machine.vm_id, wait_s=50) == []


async def test_a_list_that_is_read_in_portions_is_whole_and_in_order(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_machines(db, 7)
    monkeypatch.setattr(vms, "AT_ONCE", 3)
    assert [vm.hostname for vm in await list_vms(db)] == [f"lab-m{number}" for number in range(7)]
    assert [vm.hostname for vm in await list_vms(db, limit=5)] == [f"lab-m{number}" for number in range(5)]
