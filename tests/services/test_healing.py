"""Healing: what fails is mended up the ladder, within the budget, and never at the cost of somebody's work."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import text

from backend.db.engine import Database
from backend.errors import NotFound
from backend.services.alarms import apply_rules, list_open_alarms
from backend.services.budgets import lift_fuse, set_budget, watch_budgets
from backend.services.claims import get_claim, list_claims, release_own_claim, request_claim
from backend.services.events import list_events
from backend.services.healing import heal
from backend.services.healing_breakers import close_breaker, find_breaker
from backend.services.healing_limits import HealingLimits
from backend.services.healing_outlook import find_outlook
from backend.services.holders import Holder
from backend.services.operations import list_operations, request_cancel, request_launch
from backend.services.pools import get_pool
from backend.services.refills import refill_pools
from backend.services.repairs import list_repairs
from backend.services.rescues import let_machine_go, rescue_seats
from backend.services.sessions import UNCLEAN
from backend.services.vms import get_vm, record_silence, request_repair
from backend.setting_keys import AlarmSettings
from backend.states import (
    AlarmKind,
    ClaimStatus,
    Health,
    OperationKind,
    OperationStatus,
    RepairOutcome,
    Rung,
    VmStatus,
)
from tests.services.healing_world import World, names
from tests.services.worlds import ADMIN, make_machines, obey, status_of

LIMITS = HealingLimits(
    reboot_s=120, replace_s=600, seat_grace_s=300, per_hour=300, breaker_failures=5, breaker_s=600, pause_s=10
)

_OPEN = text("SELECT count(*) FROM repairs WHERE ended_at IS NULL")
_QUARANTINE = text("UPDATE vms SET status = 'quarantined' WHERE hostname = 'lab-001'")
_CANNOT_BE_CLEANED = text(f"""
UPDATE vms SET status = 'failed', status_changed_at = now(), reason = 'could not be cleaned',
    facts = facts || '{{"failed_by": "{UNCLEAN}"}}' WHERE hostname = 'lab-001'""")


@pytest.fixture
def world(db: Database, clock) -> World:
    return World(db, clock, LIMITS)


async def rungs(db: Database, hostname: str) -> list[tuple[Rung, RepairOutcome | None]]:
    """What was tried on a machine, the oldest first."""
    vm = await get_vm(db, hostname)
    return [(each.rung, each.outcome) for each in reversed(await list_repairs(db, vm.id))]


async def test_fifteen_of_fifty_die_at_once_and_are_mended_within_the_budget(db: Database, world: World) -> None:
    await world.open_pool(50)
    for number in range(10):
        await request_claim(db, "lab", f"p{number}@lab.org", owner_hash=f"{number}".encode())
    await asyncio.gather(*(obey(db, vm.id) for vm in await world.vms(VmStatus.IN_USE)))
    seated, free = await world.vms(VmStatus.IN_USE), await world.vms(VmStatus.AVAILABLE)
    world.dead = names(seated[:5]) | names(free[:10])
    whole = {vm.id for vm in seated[5:] + free[10:]}

    most = 0
    for _ in range(60):
        await world.pass_time(60)
        async with db.transaction() as session:
            most = max(most, await session.scalar(_OPEN) or 0)
        if len(await world.vms(VmStatus.AVAILABLE, VmStatus.IN_USE)) == 45 and not await world.vms(VmStatus.FAILED):
            break
    # Five of the dead are kept for their people; in place of the other ten there are new ones.
    kept = await world.vms(VmStatus.QUARANTINED)
    assert names(kept) == names(seated[:5])
    assert len(await world.vms(VmStatus.AVAILABLE, VmStatus.IN_USE)) == 45
    assert 5 < most <= LIMITS.at_once
    # No claim was lost: everybody has a seat, at a machine that lives.
    claims = await list_claims(db, only_open=True)
    assert len(claims) == 10
    assert {each.hostname for each in claims}.isdisjoint(world.dead)
    assert {each.status for each in claims} <= {ClaimStatus.PREPARING, ClaimStatus.ACTIVE}
    # No machine that was well was touched.
    for vm in await world.vms():
        if vm.id in whole:
            assert vm.boot_id == "boot-1"
            assert await list_repairs(db, vm.id) == []
    # Side by side: one operation takes many away, one makes many.
    launches = [each for each in await list_operations(db) if each.requested_by == "rule:heal"]
    assert any(len(each.progress) > 4 for each in launches)
    assert await find_breaker(db, (await get_pool(db, "lab")).id) is None


async def test_the_breaker_opens_when_replacements_fail_alike_and_closes_by_itself(db: Database, world: World) -> None:
    await world.open_pool(12)
    pool = await get_pool(db, "lab")
    world.dead = names((await world.vms())[:8])
    world.launches_fail = True
    for _ in range(40):
        await world.pass_time(60)
        if await find_breaker(db, pool.id):
            break
    breaker = await find_breaker(db, pool.id)
    assert breaker is not None
    assert "new machines could not be made" in breaker.reason
    await apply_rules(db, AlarmSettings(), LIMITS)
    assert AlarmKind.HEALING in {each.kind for each in await list_open_alarms(db)}

    # While it is open nothing is tried, but one machine from time to time.
    launches = len(await list_operations(db))
    await world.pass_time(LIMITS.breaker_s - 40)
    assert len(await list_operations(db)) <= launches + 2
    await world.pass_time(300)
    tried = await find_breaker(db, pool.id)
    assert tried is not None
    assert tried.trials == 1
    assert tried.trial_at > db.now()

    # The cloud has room again: one trial closes it, and the rest follows.
    world.launches_fail = False
    for _ in range(80):
        await world.pass_time(60)
        if len(await world.vms(VmStatus.AVAILABLE)) == 12:
            break
    assert await find_breaker(db, pool.id) is None
    assert len(await world.vms(VmStatus.AVAILABLE)) == len(await world.vms()) == 12
    await apply_rules(db, AlarmSettings(quiet_s=0), LIMITS)
    assert AlarmKind.HEALING not in {each.kind for each in await list_open_alarms(db)}
    kinds = [event.kind for event in await list_events(db, limit=1_000) if event.kind.startswith("pool.healing")]
    assert kinds == ["pool.healing_resumed", "pool.healing_stopped"]


async def test_a_gpu_fault_is_off_the_offer_at_once_mended_up_the_ladder_and_back(db: Database, world: World) -> None:
    await world.open_pool(2)
    broken = {"health": Health.UNHEALTHY, "reasons": ("GPU 0 is gone",)}
    await world.beat_of("lab-001", **broken)
    assert await status_of(db, "lab-001") == VmStatus.FAILED
    await request_claim(db, "lab", "ada@lab.org", owner_hash=b"1")
    assert (await list_claims(db))[0].hostname == "lab-002"

    vm = await get_vm(db, "lab-001")
    await world.pass_time(LIMITS.after_s + 20, step_s=20)
    assert await rungs(db, "lab-001") == [(Rung.RESTART, None)]
    # Before the workload was restarted, what the agent says of the machine counts for nothing.
    await world.beat_of("lab-001", health=Health.HEALTHY, reasons=())
    assert await status_of(db, "lab-001") == VmStatus.BOOTING
    assert await obey(db, vm.id) == ["restart"]
    await world.beat_of("lab-001", **broken)
    await world.pass_time(LIMITS.restart_s + 60)
    assert (await rungs(db, "lab-001"))[1:] == [(Rung.REBOOT, None)]
    # Beats of the former boot may still be on their way.
    await world.beat_of("lab-001", health=Health.HEALTHY, reasons=())
    assert await status_of(db, "lab-001") == VmStatus.BOOTING
    await world.boot_anew("lab-001", "boot-2")
    await world.sweep()
    assert await status_of(db, "lab-001") == VmStatus.AVAILABLE
    tried = [(Rung.RESTART, RepairOutcome.FAILED), (Rung.REBOOT, RepairOutcome.SUCCEEDED)]
    assert await rungs(db, "lab-001") == tried
    # It fails again soon: what helped so briefly is not tried again.
    await world.beat_of("lab-001", **broken)
    await world.pass_time(120)
    assert [each.kind for each in await list_operations(db)] == [
        OperationKind.LAUNCH,
        OperationKind.DESTROY,
        OperationKind.LAUNCH,
    ]
    assert (await rungs(db, "lab-001"))[2][0] is Rung.REPLACE


async def test_a_cut_off_machine_that_serves_its_researcher_is_left_alone_until_its_grace_ends_and_kept_then(
    db: Database, world: World
) -> None:
    await world.open_pool(2)
    claim = (await request_claim(db, "lab", "ada@lab.org", owner_hash=b"1")).claim
    await obey(db, claim.vm_id or 0)
    world.dead = {"lab-001"}
    await world.pass_time(LIMITS.seat_grace_s - 20, step_s=40)
    held = await get_claim(db, claim.id)
    assert (held.hostname, held.status) == ("lab-001", ClaimStatus.ACTIVE)
    assert (await get_vm(db, "lab-001")).unreachable_since is not None

    await world.pass_time(60)
    moved = await get_claim(db, claim.id)
    assert (moved.hostname, moved.status) == ("lab-002", ClaimStatus.PREPARING)
    assert "lab-001 has not answered since" in (moved.reason or "")
    # Weeks later it is still there, as it was: nobody has said that it may go.
    await world.pass_time(14 * 86_400, step_s=86_400)
    former = await get_vm(db, "lab-001")
    assert (former.status, former.kept_for) == (VmStatus.QUARANTINED, claim.id)
    assert await obey(db, former.id) == []
    assert [each.kind for each in await list_operations(db)] == [OperationKind.LAUNCH]

    with pytest.raises(NotFound):
        await let_machine_go(db, claim.id, Holder(owner_hash=b"somebody else"))
    await let_machine_go(db, claim.id, Holder(owner_hash=b"1"))
    for _ in range(20):
        await world.pass_time(60)
        if (await get_vm(db, "lab-001")).status == VmStatus.DESTROYED:
            break
    assert await status_of(db, "lab-001") == VmStatus.DESTROYED


async def test_a_seat_whose_machine_dies_with_none_free_is_first_in_line_and_gets_the_one_in_its_place(
    db: Database, world: World
) -> None:
    await world.open_pool(1, max=2)
    claim = (await request_claim(db, "lab", "ada@lab.org", owner_hash=b"1")).claim
    await obey(db, claim.vm_id or 0)
    later = (await request_claim(db, "lab", "bob@lab.org", owner_hash=b"2")).claim
    world.dead = {"lab-001"}
    await world.pass_time(LIMITS.seat_grace_s + 60)
    # A stand-in is launched, beside the machine that is kept, and the seat is its own.
    await world.pass_time(60)
    moved = await get_claim(db, claim.id)
    assert (moved.hostname, moved.status) == ("lab-002", ClaimStatus.PREPARING)
    assert (await get_claim(db, later.id)).status == ClaimStatus.WAITING
    assert (await get_vm(db, "lab-001")).status == VmStatus.QUARANTINED
    # It is told, and holds by the same key and browser.
    await release_own_claim(db, claim.id, owner_hash=b"1")
    await world.sweep()
    assert await status_of(db, "lab-001") == VmStatus.DESTROYING


async def test_a_machine_that_answers_again_within_its_grace_keeps_its_seat(db: Database, world: World) -> None:
    await world.open_pool(2)
    claim = (await request_claim(db, "lab", "ada@lab.org", owner_hash=b"1")).claim
    world.dead = {"lab-001"}
    await obey(db, claim.vm_id or 0)
    await world.pass_time(LIMITS.seat_grace_s - 20, step_s=40)
    world.dead = set()
    await world.pass_time(200)
    assert (await get_claim(db, claim.id)).hostname == "lab-001"


async def test_who_waits_for_another_machine_is_back_at_their_own_once_it_answers(db: Database, world: World) -> None:
    await world.open_pool(1)
    claim = (await request_claim(db, "lab", "ada@lab.org", owner_hash=b"1")).claim
    await obey(db, claim.vm_id or 0)
    world.dead = {"lab-001"}
    await world.pass_time(LIMITS.seat_grace_s + 120)
    assert (await get_claim(db, claim.id)).status == ClaimStatus.WAITING
    world.dead = set()
    await world.pass_time(60)
    back = await get_claim(db, claim.id)
    assert (back.hostname, back.status) == ("lab-001", ClaimStatus.PREPARING)
    # Nothing was removed: its session is ensured, not ended.
    assert await obey(db, back.vm_id or 0) == ["prepare_session"]
    vm = await get_vm(db, "lab-001")
    assert (vm.status, vm.kept_for, vm.email) == (VmStatus.IN_USE, None, "ada@lab.org")


async def test_silence_before_we_listened_ourselves_moves_nobody(db: Database, world: World) -> None:
    await world.open_pool(2)
    claim = (await request_claim(db, "lab", "ada@lab.org", owner_hash=b"1")).claim
    await obey(db, claim.vm_id or 0)
    world.dead = {"lab-001", "lab-002"}
    world.clock.advance(86_400)
    await world.beat()
    await record_silence(db, after_s=50)
    assert await rescue_seats(db, LIMITS, heard_for_s=60) == 0
    assert (await get_claim(db, claim.id)).hostname == "lab-001"


async def test_what_an_admin_keeps_out_or_cancelled_is_not_healed(db: Database, world: World) -> None:
    await world.open_pool(2, max=5)
    async with db.transaction() as session:
        await session.execute(_QUARANTINE)
    operation = await request_launch(db, "lab", 1, actor=ADMIN)
    await request_cancel(db, operation.id, actor=ADMIN)
    assert await status_of(db, "lab-003") == VmStatus.FAILED
    await world.pass_time(4_000, step_s=500)
    assert await status_of(db, "lab-001") == VmStatus.QUARANTINED
    assert await status_of(db, "lab-003") == VmStatus.FAILED
    for name in ("lab-001", "lab-003"):
        assert await rungs(db, name) == []


async def test_a_spent_budget_holds_replacements_but_not_reboots(db: Database, world: World) -> None:
    await world.open_pool(1, price_per_hour=10.0)
    await set_budget(db, "lab", 0.01, actor=ADMIN)
    world.clock.advance(3_600)
    await world.beat()
    await watch_budgets(db)
    world.dead = {"lab-001"}
    await world.pass_time(2_000)
    assert await rungs(db, "lab-001") == [(Rung.REBOOT, RepairOutcome.FAILED)]
    assert await status_of(db, "lab-001") == VmStatus.FAILED
    await lift_fuse(db, "lab", actor=ADMIN)
    await world.pass_time(240)
    assert (await world.vms(VmStatus.AVAILABLE))[0].hostname == "lab-002"


async def test_a_refill_that_came_first_stands_in_for_the_machine_that_failed(db: Database, world: World) -> None:
    await world.open_pool(2, max=10, available_min=2)
    world.dead = {"lab-001"}
    for _ in range(16):
        await world.pass_time(60)
        await refill_pools(db)
    assert await status_of(db, "lab-001") == VmStatus.DESTROYED
    assert names(await world.vms()) == {"lab-002", "lab-003"}
    assert (await list_repairs(db, (await get_vm(db, "lab-001")).id))[0].replacement == "lab-003"


async def test_a_machine_that_joined_is_rebooted_a_few_times_and_never_destroyed(db: Database, world: World) -> None:
    await make_machines(db, 1)
    world.dead = {"lab-m0"}
    await world.pass_time(3_000, step_s=200)
    assert await status_of(db, "lab-m0") == VmStatus.FAILED
    assert await rungs(db, "lab-m0") == [(Rung.REBOOT, RepairOutcome.FAILED)] * 3
    # An admin's own repair is not in anybody's way.
    assert await request_repair(db, ["lab-m0"], actor=ADMIN) == ["lab-m0"]


async def test_processes_that_heal_at_once_begin_each_repair_once(db: Database, world: World) -> None:
    await world.open_pool(10)
    world.dead = names(await world.vms())
    while not await world.vms(VmStatus.FAILED):
        world.clock.advance(20)
        await world.sweep()
    world.clock.advance(LIMITS.after_s + 1)
    await asyncio.gather(*(heal(db, LIMITS) for _ in range(6)))
    for vm in await world.vms():
        assert len(await list_repairs(db, vm.id)) == 1


async def test_a_pool_may_have_figures_of_its_own_and_none_at_all(db: Database, world: World) -> None:
    await world.open_pool(4, healing={"at_once": 0})
    world.dead = {"lab-001"}
    await world.pass_time(1_000)
    assert await rungs(db, "lab-001") == []
    assert await status_of(db, "lab-001") == VmStatus.FAILED


async def test_an_admin_closes_the_breaker_and_what_failed_before_counts_no_more(db: Database, world: World) -> None:
    await world.open_pool(8)
    pool = await get_pool(db, "lab")
    world.dead, world.launches_fail = names((await world.vms())[:6]), True
    while not await find_breaker(db, pool.id):
        await world.pass_time(20)
    world.launches_fail = False
    await close_breaker(db, "lab", actor=ADMIN)
    for _ in range(16):
        await world.pass_time(60)
        if len(await world.vms(VmStatus.AVAILABLE)) == 8:
            break
    assert len(await world.vms(VmStatus.AVAILABLE)) == 8


async def test_of_a_launch_that_healing_asked_for_nothing_half_made_is_left(db: Database, world: World) -> None:
    await world.open_pool(1, max=5)
    world.dead, world.launches_fail = {"lab-001"}, True
    await world.pass_time(400)
    failed = [each for each in await list_operations(db) if each.status is OperationStatus.FAILED]
    assert failed
    world.launches_fail = False
    await world.pass_time(400)
    assert len(await world.vms()) == 1


async def test_a_machine_that_must_go_is_replaced_at_once_and_its_page_says_what_comes_next(
    db: Database, world: World
) -> None:
    await world.open_pool(3, max=4)
    async with db.transaction() as session:
        await session.execute(_CANNOT_BE_CLEANED)
    vm = await get_vm(db, "lab-001")
    outlook = await find_outlook(db, vm.id, LIMITS)
    assert outlook is not None
    assert (outlook.sentence, outlook.at) == (
        "Next is another machine in its place",
        vm.status_changed_at + timedelta(seconds=LIMITS.after_s),
    )
    off = await find_outlook(db, vm.id, replace(LIMITS, at_once=0))
    assert off is not None
    assert off.sentence == "Nothing more is tried by itself in this pool."
    await world.pass_time(60)
    assert await rungs(db, "lab-001") == [(Rung.REPLACE, None)]
    assert await find_outlook(db, vm.id, LIMITS) is None
    await world.pass_time(120)
    assert await rungs(db, "lab-001") == [(Rung.REPLACE, RepairOutcome.SUCCEEDED)]
    assert names(await world.vms(VmStatus.AVAILABLE)) == {"lab-002", "lab-003", "lab-004"}
