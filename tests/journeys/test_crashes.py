"""Kill anything at any moment: nothing is lost, nothing lingers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import psutil
import pytest

from backend.services.actor import Actor
from backend.services.operations import request_cancel
from backend.services.vms import request_repair
from tests.conftest import MakeServer
from tests.harness.pools import database_of
from tests.harness.processes import is_told_to_stop, list_processes
from tests.harness.server import Server
from tests.harness.waiting import until

pytestmark = pytest.mark.patient
ADMIN = Actor.admin("test")
SLOWLY = "terraform.parallelism=1"
SETTLED = ("available", "in-use", "failed")


@pytest.fixture(scope="module")
async def slow_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """One that makes its machines one after the other; every test leaves it empty."""
    server = MakeServer(tmp_path_factory.mktemp("slow") / "home", SLOWLY)
    await server.start()
    yield server
    await server.close()


async def at_once(server: Server, operation_id: int, names: list[str]) -> bool:
    return True


async def is_running(server: Server, operation_id: int, names: list[str]) -> bool:
    return (await server.operation(operation_id))["status"] == "running"


async def is_applying(server: Server, operation_id: int, names: list[str]) -> bool:
    return sum((server.home / "vms" / name / "agent.log").exists() for name in names) >= 3


async def has_first_heartbeats(server: Server, operation_id: int, names: list[str]) -> bool:
    vms = await server.list_vms()
    return any(vms[name]["status"] == "available" for name in names)


Moment = Callable[[Server, int, list[str]], Awaitable[bool]]
MOMENTS = (at_once, is_running, is_applying, has_first_heartbeats)


@pytest.mark.parametrize(
    "launches",
    [{at_once: 2, has_first_heartbeats: 4}, pytest.param(dict.fromkeys(MOMENTS, 8), marks=pytest.mark.long)],
    ids=["first_and_last_moment", "every_moment"],
)
async def test_killing_the_server_in_a_launch_loses_nothing(slow_server: Server, launches: dict[Moment, int]) -> None:
    server = slow_server
    _, (seat,) = await server.launch(1)
    await server.until_status([seat], "available")
    async with server.client() as client:
        await client.post("/api/request_vm", json={"email": "ada@lab.org", "pool": "default"})
    boot = (await server.list_vms())[seat]["boot_id"]
    for moment, count in launches.items():
        operation_id, names = await server.launch(count)
        await until(partial(moment, server, operation_id, names), within_s=60, every_s=0.05, what=moment.__name__)
        server.kill()
        await server.start()
        vms = await server.until_status(names, *SETTLED)
        assert all(vms[name]["reason"] for name in names if vms[name]["status"] == "failed")
        assert (await server.until_operation_ends(operation_id))["status"] in {"succeeded", "failed"}
        assert (vms[seat]["status"], vms[seat]["email"], vms[seat]["boot_id"]) == ("in-use", "ada@lab.org", boot)
        living = {name for name, vm in vms.items() if vm["status"] != "failed"}
        assert set(server.vms.list_running()) == living
    await destroy_all(server)


async def test_killing_terraform_in_a_launch_fails_cleanly_and_a_later_launch_goes_through(slow_server: Server) -> None:
    server = slow_server
    operation_id, names = await server.launch(5)
    await until(lambda: server.count_begun() >= 2, within_s=60, every_s=0.01)
    for process in await until(lambda: list_processes(server.home, "terraform"), every_s=0.01):
        process.kill()
    ended = await server.until_operation_ends(operation_id)
    assert ended["status"] == "failed"
    assert ended["reason"]
    vms = await server.until_status(names, *SETTLED)
    assert all(vms[name]["reason"] for name in names if vms[name]["status"] == "failed")
    living = {name for name, vm in vms.items() if vm["status"] == "available"}
    assert set(server.vms.list_running()) == living

    _, more = await server.launch(1)
    await server.until_status(more, "available")
    assert living <= set(server.vms.list_running())
    await destroy_all(server)


async def test_a_killed_agent_is_seen_and_repaired(start_server) -> None:
    server = await start_server("agent.heartbeat_interval_s=1", "agent.unreachable_after_s=3")
    _, (name,) = await server.launch(1)
    await server.until_status([name], "available")
    boot = (await server.list_vms())[name]["boot_id"]
    psutil.Process(server.vms.list_running()[name]).kill()

    async def is_unreachable() -> bool:
        return (await server.list_vms())[name]["unreachable_since"] is not None

    await until(is_unreachable, what="the silence is seen")
    async with database_of(server) as db:
        await request_repair(db, [name], actor=ADMIN)

    async def is_back() -> bool:
        vm = (await server.list_vms())[name]
        return vm["status"] == "available" and vm["boot_id"] != boot and vm["unreachable_since"] is None

    await until(is_back, what="the machine is back")


async def test_cancelling_a_launch_half_way_keeps_what_was_made(slow_server: Server) -> None:
    server = slow_server
    async with database_of(server) as db:
        operation_id, names = await server.launch(5)
        await until(lambda: server.count_begun() >= 2, within_s=60, every_s=0.01)
        # Held, so that it cannot be done before it is told to stop.
        terraform = list_processes(server.home, "terraform")
        for process in terraform:
            process.suspend()
        await request_cancel(db, operation_id, actor=ADMIN)
        await until(lambda: any(is_told_to_stop(process) for process in terraform))
        for process in terraform:
            process.resume()
    assert (await server.until_operation_ends(operation_id))["status"] == "cancelled"
    vms = await server.until_status(names, "available", "failed")
    made = {name for name in names if vms[name]["status"] == "available"}
    assert 0 < len(made) < 5
    assert set(server.vms.list_running()) == made
    assert all(vms[name]["reason"] for name in names if name not in made)
    # Kept: a later launch does not touch them. Destroyed: nothing is left.
    pids = server.vms.list_running()
    _, more = await server.launch(1)
    await server.until_status(more, "available")
    assert pids.items() <= server.vms.list_running().items()
    await destroy_all(server)


async def test_a_machine_that_no_row_knows_does_not_survive_a_restart(slow_server: Server) -> None:
    server = slow_server
    server.vms.start("stranger-001", server_url=server.url, token="unknown", options={})
    assert "stranger-001" in server.vms.list_running()
    await server.stop()
    await server.start()
    assert server.vms.list_running() == {}


async def destroy_all(server: Server) -> None:
    """Destroys the whole pool; afterwards neither a process nor a directory is left."""
    answer = await server.api.post("/api/admin/destroy", json={"all": True, "pool": "default"})
    assert answer.status_code == 202, answer.text

    async def is_empty() -> bool:
        return not await server.list_vms()

    await until(is_empty, within_s=60, what="everything is destroyed")
    assert server.vms.list_running() == {}
    assert server.vms.list_existing() == []
