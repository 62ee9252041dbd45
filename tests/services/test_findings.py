"""Findings are kept while they hold, told once, and mended by whoever may, in the database's own way."""

from __future__ import annotations

import pytest

from backend.db.engine import Database
from backend.errors import Conflict, Forbidden, NotFound
from backend.services.actor import Actor
from backend.services.claims import get_claim, request_claim
from backend.services.events import EventFilter, iterate_events
from backend.services.findings import (
    Found,
    PoolFacts,
    adopt_stranger,
    find_finding,
    get_finding,
    give_up_vm,
    list_findings,
    list_pool_facts,
    record_findings,
    record_state_download,
)
from backend.services.operations import request_launch, request_rebuild
from backend.services.pools import PoolSpec, ensure_pool, get_pool
from backend.services.runs import begin_run, finish_run
from backend.services.vms import get_vm
from backend.states import ClaimStatus, FindingKind, OperationKind, OperationStatus, Role, VmStatus
from tests.services.worlds import ADMIN, count_statements, make_machines, status_of

FACTS = {"machine_id": "i-7", "hostname": "lab-007", "kind": "t3.large"}


async def facts_of(db: Database) -> list[PoolFacts]:
    await ensure_pool(db, "lab", PoolSpec(), actor=ADMIN)
    return await list_pool_facts(db, "local")


def stranger(pool_id: int | None) -> Found:
    return Found(pool_id, FindingKind.STRANGER, "i-7", "i-7 is unknown.", FACTS)


async def told(db: Database) -> list[str]:
    return [each.event.message async for each in iterate_events(db, EventFilter(words="is unknown"), limit=100)]


async def test_a_comparison_costs_as_many_statements_for_twenty_pools_as_for_one(db: Database) -> None:
    counts = []
    for names in (["lab"], [f"lab-{number}" for number in range(20)]):
        for name in names:
            await ensure_pool(db, name, PoolSpec(), actor=ADMIN)

        async def compare() -> None:
            await record_findings(db, "local", [], looked_at=await list_pool_facts(db, "local"))

        counts.append(await count_statements(db, compare))
    assert counts[0] == counts[1]


async def test_a_finding_is_told_once_kept_while_it_holds_and_gone_when_it_does_not(db: Database) -> None:
    pools = await facts_of(db)
    found = [stranger(pools[0].pool.id), Found(None, FindingKind.STRANGER, "i-8", "i-8 is unknown.")]
    for _ in range(3):
        await record_findings(db, "local", found, looked_at=pools)
    kept = await list_findings(db)
    assert [(each.subject, each.mend) for each in kept] == [("i-7", "adopt"), ("i-8", "destroy")]
    assert len(await told(db)) == 2
    await record_findings(db, "local", found[1:], looked_at=pools)
    assert [each.subject for each in await list_findings(db)] == ["i-8"]
    with pytest.raises(NotFound):
        await get_finding(db, kept[0].id)
    await record_findings(db, "other", [], looked_at=[])
    assert len(await list_findings(db)) == 1


async def test_a_pool_in_which_an_operation_began_meanwhile_is_left_as_it_is(db: Database) -> None:
    pools = await facts_of(db)
    await record_findings(db, "local", [stranger(pools[0].pool.id)], looked_at=pools)
    operation = await request_launch(db, "lab", 1, actor=ADMIN)
    await record_findings(db, "local", [], looked_at=pools)
    assert len(await list_findings(db)) == 1
    (busy,) = await list_pool_facts(db, "local")
    assert (busy.is_busy, busy.last_operation_id) == (True, operation.id)
    await record_findings(db, "local", [], looked_at=[busy])
    assert len(await list_findings(db)) == 1

    await begin_run(db, operation.id, owner="here")
    done = {"owner": "here", "status": OperationStatus.SUCCEEDED, "reason": None, "existing": operation.hostnames}
    await finish_run(db, operation.id, **done)
    # What was seen before it ended may be half of the truth, too.
    await record_findings(db, "local", [], looked_at=pools)
    assert len(await list_findings(db)) == 1
    await record_findings(db, "local", [], looked_at=await list_pool_facts(db, "local"))
    assert await list_findings(db) == []


async def test_a_vm_whose_machine_is_gone_fails_and_its_seat_moves_on(db: Database) -> None:
    await make_machines(db, 1)
    seat = (await request_claim(db, "lab", "ada@lab.org", owner_hash=None)).claim
    assert await status_of(db, "lab-m0") == "in-use"
    pools = await list_pool_facts(db, "local")
    gone = Found(pools[0].pool.id, FindingKind.GONE, "lab-m0", "lab-m0 is gone.")
    await record_findings(db, "local", [gone], looked_at=pools)
    finding = await find_finding(db, FindingKind.GONE, "lab-m0")
    assert finding is not None
    assert await give_up_vm(db, finding.id, actor=ADMIN) == "lab-m0"
    vm = await get_vm(db, "lab-m0")
    assert (vm.status, vm.reason, vm.email) == (VmStatus.FAILED, "its machine is gone", None)
    assert (await get_claim(db, seat.id)).status == ClaimStatus.WAITING
    assert await list_findings(db) == []
    with pytest.raises(NotFound):
        await give_up_vm(db, finding.id, actor=ADMIN)


async def test_a_stranger_is_taken_in_quarantined_and_its_number_is_not_given_again(db: Database) -> None:
    pools = await facts_of(db)
    await record_findings(db, "local", [stranger(pools[0].pool.id)], looked_at=pools)
    (finding,) = await list_findings(db)
    assert await adopt_stranger(db, finding.id, actor=ADMIN) == "lab-007"
    vm = await get_vm(db, "lab-007")
    assert (vm.status, vm.origin) == (VmStatus.QUARANTINED, "terraform")
    assert (await request_launch(db, "lab", 1, actor=ADMIN)).hostnames == ("lab-008",)

    await record_findings(db, "local", [stranger(None)], looked_at=[])
    twin = Found(pools[0].pool.id, FindingKind.STRANGER, "i-9", "i-9 is unknown.", {**FACTS, "machine_id": "i-9"})
    await record_findings(db, "other", [twin], looked_at=[])
    for each in await list_findings(db):
        with pytest.raises(Conflict):
            await adopt_stranger(db, each.id, actor=ADMIN)


async def test_a_rebuild_is_asked_for_once_at_a_time_and_touches_no_vm(db: Database) -> None:
    await facts_of(db)
    operation = await request_rebuild(db, "lab", actor=ADMIN)
    assert (operation.kind, operation.hostnames) == (OperationKind.REBUILD, ())
    with pytest.raises(Conflict, match=rf"Operation {operation.id} in pool 'lab' has to end first\."):
        await request_rebuild(db, "lab", actor=ADMIN)


async def test_a_download_of_a_state_is_for_admins_and_written_down(db: Database) -> None:
    await facts_of(db)
    pool = await get_pool(db, "lab")
    with pytest.raises(Forbidden):
        await record_state_download(db, pool, "x", actor=Actor.admin("oli", role=Role.OPERATOR))
    await record_state_download(db, pool, "terraform.tfstate", actor=ADMIN)
    events = [each.event async for each in iterate_events(db, EventFilter(words="downloaded"), limit=10)]
    assert [(each.actor, each.message) for each in events] == [
        ("admin:test", "Terraform's state of pool lab was downloaded (terraform.tfstate)")
    ]
