from __future__ import annotations

import pytest

from backend.db.engine import Database
from backend.errors import Unauthenticated
from backend.services.boots import BootStep, Preparation, get_preparation, record_boot_step
from backend.services.enrolments import announce_boot, authenticate_agent, create_enrolments, create_vm_enrolments
from backend.services.events import list_events
from backend.services.heartbeats import record_heartbeats
from backend.services.operations import request_launch
from backend.services.pools import PoolSpec, ensure_pool
from backend.services.vm_logs import list_vm_log
from backend.services.vms import fail_overdue_vms, get_vm
from tests.conftest import Clock
from tests.services.worlds import ADMIN, make_machines, report

FAILED = BootStep("agent", has_succeeded=False, duration_s=12.345, lines=["Collecting requests", "no way there", ""])


async def launch_one(db: Database) -> tuple[str, str]:
    """A machine that Terraform is to make; returns its name and its enrolment token."""
    await ensure_pool(db, "lab", PoolSpec(repository="https://git/x", startup_script="echo hi"), actor=ADMIN)
    (hostname,) = (await request_launch(db, "lab", 1, actor=ADMIN)).hostnames
    vm = await get_vm(db, hostname)
    return hostname, (await create_vm_enrolments(db, [vm.id], actor=ADMIN))[vm.id]


async def log_of(db: Database, hostname: str) -> list[str]:
    return [line.message for line in await list_vm_log(db, (await get_vm(db, hostname)).id) if line.source == "boot"]


async def test_every_step_of_a_boot_is_in_the_machines_log_with_its_time(db: Database) -> None:
    hostname, token = await launch_one(db)
    await record_boot_step(db, token, BootStep("python", has_succeeded=True, duration_s=0.25))
    await record_boot_step(db, token, FAILED)
    assert await log_of(db, hostname) == [
        "python: succeeded after 0.2 s",
        "Collecting requests",
        "no way there",
        "",
        "agent: failed after 12.3 s",
    ]


async def test_a_failed_step_is_the_reason_that_is_shown_and_in_history_once(db: Database) -> None:
    hostname, token = await launch_one(db)
    for _ in range(3):
        await record_boot_step(db, token, FAILED)
    vm = await get_vm(db, hostname)
    assert (vm.health, vm.reasons) == ("unhealthy", ("the boot step 'agent' failed: no way there",))
    assert [event.kind for event in await list_events(db, vm_id=vm.id)].count("vm.boot_failed") == 1


async def test_a_machine_that_is_given_up_says_what_its_boot_last_failed_at(db: Database, clock: Clock) -> None:
    hostname, token = await launch_one(db)
    enrolled = await announce_boot(db, token, hostname=hostname, boot_id="boot-1", agent_version="1")
    assert enrolled.agent_token
    await record_boot_step(db, enrolled.agent_token, FAILED)
    clock.advance(901)
    assert await fail_overdue_vms(db) == 1
    assert (await get_vm(db, hostname)).reason == (
        "not ready 900 s after it began to boot: its agent never reported (the boot step 'agent' failed: no way there)"
    )


async def test_an_enrolment_token_tells_nothing_more_once_the_agent_has_beaten(db: Database) -> None:
    hostname, token = await launch_one(db)
    enrolled = await announce_boot(db, token, hostname=hostname, boot_id="boot-1", agent_version="1")
    assert enrolled.agent_token
    agent = await authenticate_agent(db, enrolled.agent_token)
    await record_boot_step(db, token, FAILED)
    await record_heartbeats(db, [report(db, agent.vm_id, agent.enrolment_id)])
    assert (await get_vm(db, hostname)).reasons == ()
    with pytest.raises(Unauthenticated):
        await record_boot_step(db, token, FAILED)
    await record_boot_step(db, enrolled.agent_token, BootStep("image", has_succeeded=True, duration_s=1))


async def test_a_token_that_any_machine_may_join_with_speaks_for_none(db: Database) -> None:
    await make_machines(db, 1)
    (token,) = await create_enrolments(db, "lab", 1, actor=ADMIN)
    with pytest.raises(Unauthenticated):
        await record_boot_step(db, token, FAILED)


async def test_a_machine_prepares_what_its_pool_says(db: Database) -> None:
    hostname, _ = await launch_one(db)
    vm = await get_vm(db, hostname)
    assert await get_preparation(db, vm.id) == Preparation("https://git/x", "echo hi")
