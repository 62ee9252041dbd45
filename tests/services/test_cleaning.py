"""Cleaning as the server sees it: how far it is, what was verified, and what becomes of a machine that is not clean."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from sqlalchemy import text

from backend.db.engine import Database
from backend.errors import InvalidInput
from backend.services.actor import Actor
from backend.services.boots import get_preparation
from backend.services.claims import get_claim, release_vms, request_claim
from backend.services.commands import CommandView, expire_commands, list_commands_for_agent, record_command_result
from backend.services.crd_results import record_command_progress
from backend.services.events import list_events
from backend.services.heartbeats import HeartbeatReport, record_heartbeats
from backend.services.pools import PoolSpec, ensure_pool, update_pool
from backend.services.vms import get_vm, request_repair
from backend.states import VmStatus
from tests.conftest import Clock
from tests.services.worlds import ADMIN, make_machines, obey, report

AGENT = Actor.agent("lab-m0")


async def begin_cleaning(db: Database, **figures: object) -> tuple[HeartbeatReport, CommandView]:
    """A machine whose person has just left; returns its heartbeat, and what its agent is asked to do."""
    await ensure_pool(db, "lab", PoolSpec(max=1_000, **figures), actor=ADMIN)  # type: ignore[arg-type]
    (machine,) = await make_machines(db, 1)
    await request_claim(db, "lab", "ada@lab.org", owner_hash=b"a" * 32)
    await obey(db, machine.vm_id)
    await release_vms(db, ["lab-m0"], actor=ADMIN)
    (command,) = await list_commands_for_agent(db, machine.vm_id)
    return machine, command


async def answer(db: Database, machine: HeartbeatReport, command: CommandView, *, succeeded: bool, **told: str) -> None:
    detail = told.pop("detail", "")
    await record_command_result(
        db, machine.vm_id, command.id, succeeded=succeeded, detail=detail, data=told, actor=AGENT
    )


async def test_how_far_cleaning_is_and_since_when_is_known_and_what_was_verified_is_history(
    db: Database, clock: Clock
) -> None:
    machine, command = await begin_cleaning(db)
    began = (await get_vm(db, "lab-m0")).status_changed_at
    for step in ("The cleaning script runs.", "The files of the session are removed."):
        clock.advance(2)
        await record_command_progress(db, machine.vm_id, command.id, detail=step, actor=AGENT)
        vm = await get_vm(db, "lab-m0")
        assert (vm.status, vm.reason, vm.status_changed_at) == (VmStatus.CLEANING, step, began)
    clock.advance(1.5)
    await answer(db, machine, command, succeeded=True, verified="processes, its user")
    vm = await get_vm(db, "lab-m0")
    assert (vm.status, vm.reason) == (VmStatus.AVAILABLE, None)
    (event,) = [each for each in await list_events(db, vm_id=vm.id) if each.kind == "vm.cleaned"]
    told = re.fullmatch(r"lab-m0 was cleaned in ([\d.]+) s\. Verified: processes, its user", event.message)
    assert told
    assert float(told[1]) >= 5.5
    # A late word of the agent's changes nothing any more.
    await record_command_progress(db, machine.vm_id, command.id, detail="late", actor=AGENT)
    assert (await get_vm(db, "lab-m0")).reason is None


async def test_the_deadline_of_cleaning_is_the_pools_and_counts_from_the_change_of_status(
    db: Database, clock: Clock
) -> None:
    machine, command = await begin_cleaning(db, cleaning_deadline_s=120)
    assert command.payload["deadline_s"] == 120
    clock.advance(90)
    # Delivered again, as to an agent that was killed in the middle: the deadline stays.
    assert await list_commands_for_agent(db, machine.vm_id) == [command]
    await record_command_progress(db, machine.vm_id, command.id, detail="The cleaning script runs.", actor=AGENT)
    assert await expire_commands(db) == 0
    clock.advance(30)
    assert await expire_commands(db) == 1
    vm = await get_vm(db, "lab-m0")
    assert (vm.status, vm.is_unclean) == (VmStatus.FAILED, True)
    assert vm.reason == (
        "the former session could not be removed: no answer before its deadline "
        "(the last heard of it: The cleaning script runs.)"
    )


async def test_a_machine_that_is_not_clean_is_nobodys_until_it_is_replaced_or_clean(db: Database) -> None:
    machine, command = await begin_cleaning(db)
    waiting = (await request_claim(db, "lab", "bob@lab.org", owner_hash=b"b" * 32)).claim
    await answer(db, machine, command, succeeded=False, detail="something of the session is left: the file /tmp/x")
    vm = await get_vm(db, "lab-m0")
    assert (vm.status, vm.is_unclean) == (VmStatus.FAILED, True)
    assert "the file /tmp/x" in (vm.reason or "")
    # However well it says that it is, by itself it does not come back.
    later = db.now() + timedelta(seconds=20)
    await record_heartbeats(db, [report(db, machine.vm_id, machine.enrolment_id, at=later)])
    assert (await get_vm(db, "lab-m0")).status is VmStatus.FAILED
    assert (await get_claim(db, waiting.id)).vm_id is None
    # Repair has it cleaned once more; where that fails, nothing is gained.
    for succeeded, status, is_unclean in ((False, VmStatus.FAILED, True), (True, VmStatus.IN_USE, False)):
        await request_repair(db, ["lab-m0"], actor=ADMIN)
        async with db.transaction() as session:
            await session.execute(text("UPDATE vms SET facts = facts - 'awaiting_boot'"))
        await obey(db, machine.vm_id, succeeded=succeeded)
        later += timedelta(seconds=20)
        await record_heartbeats(db, [report(db, machine.vm_id, machine.enrolment_id, at=later, boot_id="boot-2")])
        vm = await get_vm(db, "lab-m0")
        assert (vm.status, vm.is_unclean) == (status, is_unclean)
    assert (await get_claim(db, waiting.id)).vm_id == machine.vm_id


async def test_a_boot_that_takes_longer_than_cleaning_may_is_no_sign_of_an_unclean_machine(
    db: Database, clock: Clock
) -> None:
    machine, command = await begin_cleaning(db)
    await answer(db, machine, command, succeeded=False)
    await request_repair(db, ["lab-m0"], actor=ADMIN)
    clock.advance(301)
    await expire_commands(db)
    assert (await get_vm(db, "lab-m0")).status is VmStatus.BOOTING


async def test_a_pools_cleaning_script_reaches_its_machines_and_has_limits(db: Database) -> None:
    machine, _ = await begin_cleaning(db, cleaning_script="rm -rf /scratch/*")
    assert (await get_preparation(db, machine.vm_id)).cleaning_script == "rm -rf /scratch/*"
    for wrong in (PoolSpec(cleaning_script="x" * 8_001), PoolSpec(cleaning_deadline_s=29)):
        with pytest.raises(InvalidInput, match="cleaning_"):
            await update_pool(db, "lab", wrong, actor=ADMIN)
