from __future__ import annotations

import asyncio

import pytest

from backend.db.engine import Database
from backend.errors import Conflict, IllegalMove, InvalidInput, NotFound
from backend.services import runs
from backend.services.destroys import request_destroy
from backend.services.enrolments import announce_boot, authenticate_agent, create_vm_enrolments
from backend.services.heartbeats import record_heartbeats
from backend.services.operations import get_operation, request_cancel, request_launch
from backend.services.pools import PoolSpec, ensure_pool, set_pool_open
from backend.services.runs import LeaseLost, Progress
from backend.services.vms import get_vm, get_vm_by_id, list_vms
from backend.states import (
    CLAIM_MOVES,
    COMMAND_MOVES,
    OPERATION_MOVES,
    VM_MOVES,
    OperationStatus,
    ProgressState,
    VmStatus,
)
from tests.services.worlds import ADMIN, make_machines, obey, report, status_of

DONE = Progress(ProgressState.DONE, None, 1.0)


async def launch(db: Database, count: int, pool: str = "lab"):
    await ensure_pool(db, pool, PoolSpec(max=20), actor=ADMIN)
    return await request_launch(db, pool, count, actor=ADMIN)


async def test_a_launch_inserts_machines_operation_and_job_together(db: Database) -> None:
    operation = await launch(db, 3)
    assert operation.status is OperationStatus.QUEUED
    assert operation.hostnames == ("lab-001", "lab-002", "lab-003")
    assert [vm.status for vm in await list_vms(db)] == [VmStatus.PROVISIONING] * 3
    async with db.transaction() as session:
        from sqlalchemy import text

        jobs = (await session.execute(text("SELECT status, lock FROM procrastinate_jobs"))).all()
    assert [(str(job.status), job.lock) for job in jobs] == [("todo", "pool:1")]


@pytest.mark.parametrize("count", [0, -1, 21, 100_000])
async def test_a_launch_of_too_many_or_none_changes_nothing(db: Database, count: int) -> None:
    await ensure_pool(db, "lab", PoolSpec(max=20), actor=ADMIN)
    with pytest.raises(InvalidInput):
        await request_launch(db, "lab", count, actor=ADMIN)
    assert await list_vms(db) == []


async def test_two_launches_at_once_never_pass_the_pools_limit(db: Database) -> None:
    await ensure_pool(db, "lab", PoolSpec(max=20), actor=ADMIN)
    results = await asyncio.gather(
        *(request_launch(db, "lab", 6, actor=ADMIN) for _ in range(8)), return_exceptions=True
    )
    assert sum(not isinstance(result, BaseException) for result in results) == 3
    assert all(isinstance(result, Conflict) for result in results if isinstance(result, BaseException))
    names = [vm.hostname for vm in await list_vms(db)]
    assert len(names) == len(set(names)) == 18


async def test_a_closed_pool_launches_nothing(db: Database) -> None:
    await ensure_pool(db, "lab", PoolSpec(), actor=ADMIN)
    await set_pool_open(db, "lab", is_open=False, actor=ADMIN)
    with pytest.raises(Conflict):
        await request_launch(db, "lab", 1, actor=ADMIN)


async def test_only_one_worker_carries_out_an_operation(db: Database) -> None:
    operation = await launch(db, 1)
    taken = await asyncio.gather(*(runs.begin_run(db, operation.id, owner=f"w{n}") for n in range(8)))
    assert sum(run is not None for run in taken) == 1


async def test_an_operation_of_a_dead_worker_is_taken_up_and_given_up_after_three_attempts(db: Database, clock) -> None:
    operation = await launch(db, 2)
    for attempt in range(1, 4):
        run = await runs.begin_run(db, operation.id, owner=f"w{attempt}")
        assert run is not None
        assert run.attempt == attempt
        assert await runs.recover_runs(db, is_dead=lambda owner: False) == 0
        assert await runs.recover_runs(db, is_dead=lambda owner: owner.startswith("w")) == 1
    assert await runs.begin_run(db, operation.id, owner="w4") is None
    assert (await get_operation(db, operation.id)).status is OperationStatus.FAILED
    assert {vm.status for vm in await list_vms(db)} == {VmStatus.FAILED}


async def test_a_silent_workers_lease_runs_out_only_after_a_whole_lease_of_patience(db: Database, clock) -> None:
    operation = await launch(db, 1)
    await runs.begin_run(db, operation.id, owner="w1")
    clock.advance(runs.LEASE_S + 1)
    assert await runs.recover_runs(db, is_dead=lambda owner: False) == 0
    # It comes back in time: nothing was taken from it.
    assert await runs.renew_lease(db, operation.id, owner="w1") is False
    clock.advance(2 * runs.LEASE_S + 1)
    assert await runs.recover_runs(db, is_dead=lambda owner: False) == 1
    assert await runs.begin_run(db, operation.id, owner="w2") is not None
    with pytest.raises(LeaseLost):
        await runs.renew_lease(db, operation.id, owner="w1")


async def test_what_was_made_before_a_cancel_is_known(db: Database) -> None:
    operation = await launch(db, 3)
    await runs.begin_run(db, operation.id, owner="w")
    await runs.record_progress(db, operation.id, owner="w", progress={"lab-001": DONE})
    await request_cancel(db, operation.id, actor=ADMIN)
    assert await runs.renew_lease(db, operation.id, owner="w") is True
    await runs.finish_run(
        db, operation.id, owner="w", status=OperationStatus.CANCELLED, reason="cancelled", existing={"lab-001"}
    )
    assert await status_of(db, "lab-001") == "booting"
    assert await status_of(db, "lab-002") == "failed"
    assert (await get_vm(db, "lab-003")).reason == "cancelled"
    with pytest.raises(Conflict):
        await request_cancel(db, operation.id, actor=ADMIN)


async def test_a_machine_taken_away_again_is_failed_even_if_its_heartbeat_still_came_in(db: Database) -> None:
    operation = await launch(db, 2)
    run = await runs.begin_run(db, operation.id, owner="w")
    assert run is not None
    for vm_id, token in (await create_vm_enrolments(db, [vm.id for vm in run.vms], actor=ADMIN)).items():
        hostname = (await get_vm_by_id(db, vm_id)).hostname
        enrolled = await announce_boot(db, token, hostname=hostname, boot_id="boot-1", agent_version="1")
        agent = await authenticate_agent(db, str(enrolled.agent_token))
        await record_heartbeats(db, [report(db, vm_id, agent.enrolment_id)])
    why = "Terraform was killed"
    status = OperationStatus.FAILED
    await runs.finish_run(db, operation.id, owner="w", status=status, reason=why, existing=(), removed={"lab-002"})
    assert await status_of(db, "lab-001") == "available"
    assert await status_of(db, "lab-002") == "failed"
    assert (await get_vm(db, "lab-002")).reason == why


async def test_a_machine_that_terraform_called_done_but_that_was_taken_away_again_is_failed(db: Database) -> None:
    operation = await launch(db, 2)
    await runs.begin_run(db, operation.id, owner="w")
    await runs.record_progress(db, operation.id, owner="w", progress={"lab-001": DONE, "lab-002": DONE})
    status, why = OperationStatus.FAILED, "Terraform was killed"
    existing, removed = {"lab-001"}, {"lab-002"}
    await runs.finish_run(db, operation.id, owner="w", status=status, reason=why, existing=existing, removed=removed)
    assert await status_of(db, "lab-001") == "booting"
    assert await status_of(db, "lab-002") == "failed"
    assert (await get_vm(db, "lab-002")).reason == why


async def test_a_queued_operation_is_cancelled_at_once(db: Database) -> None:
    operation = await launch(db, 1)
    assert (await request_cancel(db, operation.id, actor=ADMIN)).status is OperationStatus.CANCELLED
    assert await runs.begin_run(db, operation.id, owner="w") is None
    assert await status_of(db, "lab-001") == "failed"


async def test_destroying_ends_the_seat_and_a_joined_machine_leaves_with_its_agents_answer(db: Database) -> None:
    (machine,) = await make_machines(db, 1)
    assert await request_destroy(db, ["lab-m0"], actor=ADMIN) == []
    assert await status_of(db, "lab-m0") == "destroying"
    assert await obey(db, machine.vm_id) == ["stop"]
    assert await status_of(db, "lab-m0") == "destroyed"
    with pytest.raises(NotFound):
        await request_destroy(db, ["lab-m0"], actor=ADMIN)


async def test_destroying_twice_is_refused(db: Database) -> None:
    await launch(db, 1)
    await request_destroy(db, ["lab-001"], actor=ADMIN)
    with pytest.raises(Conflict):
        await request_destroy(db, ["lab-001"], actor=ADMIN)


def test_final_states_lead_nowhere_and_every_state_can_be_reached() -> None:
    for table in (VM_MOVES, CLAIM_MOVES, OPERATION_MOVES, COMMAND_MOVES):
        first = next(iter(table))
        reached, front = {first}, {first}
        while front:
            front = {to for state in front for to in table[state]} - reached
            reached |= front
        assert reached == set(table)
    assert VM_MOVES[VmStatus.DESTROYED] == frozenset()


async def test_an_illegal_move_is_refused_and_says_what_is_allowed(db: Database) -> None:
    from backend.models import Vm
    from backend.services.moves import move_vm

    await launch(db, 1)
    with pytest.raises(IllegalMove, match="provisioning and cannot become in-use"):
        async with db.transaction() as session:
            vm = await session.get_one(Vm, 1)
            move_vm(session, vm, VmStatus.IN_USE, actor=ADMIN, at=db.now())
    assert await status_of(db, "lab-001") == "provisioning"
