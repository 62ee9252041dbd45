"""Classes by the clock: begun early enough, stopped without taking a machine from anybody unwarned, each once."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, time, timedelta

import pytest
from sqlalchemy import text

from backend.db.engine import Database
from backend.errors import Conflict, NotFound
from backend.models import Vm
from backend.services.actor import Actor
from backend.services.budgets import lift_fuse, set_budget, watch_budgets
from backend.services.claim_times import EndKind, extend_claim, find_end, keep_times
from backend.services.claims import get_claim, release_own_claim
from backend.services.events import list_events
from backend.services.moves import record_event
from backend.services.operations import list_operations, request_cancel, request_launch
from backend.services.pools import PoolSpec, ensure_pool, get_pool, set_pool_open
from backend.services.schedule_runs import extend_run, keep_schedules
from backend.services.schedules import (
    ScheduleSpec,
    create_schedule,
    list_calendar,
    list_schedules,
    pause_schedule,
    remove_schedule,
)
from backend.states import ClaimStatus, OperationKind, PoolStatus, RunStatus
from tests.services.test_claim_times import MINE
from tests.services.test_claims import claim, owner
from tests.services.worlds import ADMIN, obey, status_of

# A Monday in winter: Berlin is an hour ahead of UTC.
MONDAY = datetime(2027, 1, 11, tzinfo=UTC)
SPEC = ScheduleSpec(
    "Genomics",
    "Europe/Berlin",
    (0, 1, 2, 3, 4),
    time(9),
    time(18),
    date(2027, 1, 1),
    skips=frozenset({date(2027, 1, 12)}),
    count=2,
    catch_up_s=1_800,
)


def at(clock, hour: int, minute: float = 0, *, day: int = 0) -> None:
    """Sets the clock to a time of that Monday in UTC, or of a day after it."""
    clock.ahead = MONDAY + timedelta(days=day, hours=hour, minutes=minute) - datetime.now(UTC)


async def scheduled(db: Database, clock, **changes: object) -> None:
    at(clock, 0)
    await ensure_pool(db, "lab", PoolSpec(max=10), actor=ADMIN)
    values = {name: getattr(SPEC, name) for name in SPEC.__slots__} | changes
    await create_schedule(db, "lab", ScheduleSpec(**values), actor=ADMIN)  # type: ignore[arg-type]


async def begun(db: Database, clock) -> None:
    """A class that runs, its machines up."""
    await scheduled(db, clock)
    at(clock, 7, 51)
    assert await keep_schedules(db) == 1
    await come_up(db)
    at(clock, 8, 0)


async def come_up(db: Database) -> None:
    """Terraform and the agents do their part, as far as the classes see it."""
    up = "status = 'available', health = 'healthy', first_heartbeat_at = :now"
    async with db.transaction() as session:
        await session.execute(text(f"UPDATE vms SET {up} WHERE status = 'provisioning'"), {"now": db.now()})


async def go_away(db: Database) -> None:
    gone = "UPDATE vms SET status = 'destroyed', destroyed_at = :now WHERE status = 'destroying'"
    async with db.transaction() as session:
        await session.execute(text(gone), {"now": db.now()})


async def runs(db: Database, days: int = 1) -> list[tuple[RunStatus, str | None]]:
    found = await list_calendar(db, MONDAY, MONDAY + timedelta(days=days))
    return [(run.status, run.note) for run in found]


async def kinds(db: Database) -> list[str]:
    return [event.kind for event in reversed(await list_events(db)) if event.kind.startswith("schedule.")]


async def test_a_class_is_launched_once_early_enough_though_several_processes_look(db: Database, clock) -> None:
    await scheduled(db, clock)
    at(clock, 7, 49)
    assert await keep_schedules(db, default_lead_s=600) == 0
    at(clock, 7, 51)
    moved = await asyncio.gather(*(keep_schedules(db, default_lead_s=600) for _ in range(8)))
    assert sum(moved) == 1
    (operation,) = await list_operations(db)
    assert (operation.hostnames, operation.requested_by) == (("lab-001", "lab-002"), "rule:schedule")
    assert await runs(db) == [(RunStatus.RUNNING, None)]


async def test_how_early_follows_what_the_machines_of_the_pool_took_so_far(db: Database, clock) -> None:
    await scheduled(db, clock)
    pool = await get_pool(db, "lab")
    async with db.transaction() as session:
        for number, took_s in enumerate((1_000, 1_200, 1_400)):
            made_at = db.now() - timedelta(days=1)
            vm = Vm(hostname=f"old-{number}", pool_id=pool.id, status="destroyed", created_at=made_at,
                    updated_at=made_at, status_changed_at=made_at, first_heartbeat_at=made_at)  # fmt: skip
            session.add(vm)
            await session.flush()
            up_at = made_at + timedelta(seconds=took_s)
            record_event(session, "vm.available", "up", actor=ADMIN, at=up_at, pool_id=pool.id, vm_id=vm.id)
    # 0.9 of the way to the slowest, 1,360 s, and a minute to spare.
    at(clock, 8, -1_430 / 60)
    assert await keep_schedules(db, default_lead_s=0) == 0
    at(clock, 8, -1_410 / 60)
    assert await keep_schedules(db, default_lead_s=0) == 1


async def test_what_runs_already_counts_and_the_pools_ceiling_holds(db: Database, clock) -> None:
    await scheduled(db, clock, count=10)
    await begin_by_hand(db, 3)
    at(clock, 8)
    await keep_schedules(db)
    assert len((await list_operations(db))[0].hostnames) == 7


async def begin_by_hand(db: Database, count: int) -> None:
    await request_launch(db, "lab", count, actor=ADMIN)
    await come_up(db)


async def test_a_holiday_is_skipped_and_the_next_class_is_planned(db: Database, clock) -> None:
    await begun(db, clock)
    assert await runs(db, days=5) == [(RunStatus.RUNNING, None)] + [(RunStatus.PLANNED, None)] * 3
    at(clock, 17, 1)
    await keep_schedules(db)
    for hour in range(24):
        at(clock, hour, day=1)
        await keep_schedules(db)
        await go_away(db)
    assert len([each for each in await list_operations(db) if each.kind is OperationKind.LAUNCH]) == 1


async def test_a_class_stops_with_two_warnings_and_its_machines_go_as_they_become_free(db: Database, clock) -> None:
    await begun(db, clock)
    mine = await claim(db, 1)
    at(clock, 16, 44)
    await keep_schedules(db)
    assert (await get_claim(db, mine.id)).stops_at is None
    at(clock, 16, 46)
    await keep_schedules(db)
    await keep_times(db)
    seen = await get_claim(db, mine.id)
    assert seen.stops_at == MONDAY + timedelta(hours=17)
    assert (seen.warned_at is None, seen.warned_again_at is None) == (False, True)
    end = find_end(seen, await get_pool(db, "lab"))
    assert end is not None
    # Who was told a minute late keeps the seat a minute longer.
    assert end.kind is EndKind.CLASS
    assert abs((end.at - MONDAY - timedelta(hours=17, minutes=1)).total_seconds()) < 5
    at(clock, 16, 57)
    await keep_times(db)
    assert (await get_claim(db, mine.id)).warned_again_at is not None
    at(clock, 17, 0.1)
    await keep_schedules(db)
    await keep_schedules(db)
    assert await status_of(db, "lab-002") == "destroying"
    assert await status_of(db, "lab-001") == "in-use"
    with pytest.raises(Conflict, match="closed"):
        await claim(db, 2)
    at(clock, 17, 1.2)
    assert await keep_times(db) == 1
    ended = await get_claim(db, mine.id)
    assert (ended.status, ended.reason) == (ClaimStatus.EXPIRED, "the class is over")
    assert mine.vm_id is not None
    await obey(db, mine.vm_id)
    await keep_schedules(db)
    await keep_schedules(db)
    assert await status_of(db, "lab-001") == "destroying"
    assert await runs(db) == [(RunStatus.STOPPING, None)]
    await go_away(db)
    await keep_schedules(db)
    assert await runs(db) == [(RunStatus.ENDED, None)]
    assert await kinds(db) == ["schedule.created", "schedule.begun", "schedule.stopped", "schedule.ended"]
    warned = [event.message for event in await list_events(db) if event.kind == "claim.warned"]
    assert len(warned) == 2


async def test_a_click_keeps_the_seat_an_hour_and_its_machine_with_it(db: Database, clock) -> None:
    await begun(db, clock)
    mine = await claim(db, 1)
    at(clock, 16, 50)
    await keep_schedules(db)
    await keep_times(db)
    extended = await extend_claim(db, mine.id, MINE)
    assert (extended.warned_at, extended.warned_again_at) == (None, None)
    for minute in (61, 90, 106):
        at(clock, 16, minute)
        await keep_schedules(db)
        assert await keep_times(db) == 0
        assert await status_of(db, "lab-001") == "in-use"
    assert (await get_claim(db, mine.id)).warned_at is not None
    await release_own_claim(db, mine.id, owner_hash=owner(1))
    assert mine.vm_id is not None
    await obey(db, mine.vm_id)
    await keep_schedules(db)
    assert await status_of(db, "lab-001") == "destroying"


async def test_a_class_is_extended_by_one_click_for_all(db: Database, clock) -> None:
    await begun(db, clock)
    mine = await claim(db, 1)
    at(clock, 16, 50)
    await keep_schedules(db)
    await keep_times(db)
    (run,) = await list_calendar(db, MONDAY, MONDAY + timedelta(days=1))
    assert run.run_id is not None
    assert await extend_run(db, run.run_id, actor=ADMIN) == MONDAY + timedelta(hours=18)
    at(clock, 17, 30)
    await keep_schedules(db)
    assert await keep_times(db) == 0
    assert (await get_claim(db, mine.id)).warned_at is None
    at(clock, 17, 50)
    await keep_schedules(db)
    assert (await get_claim(db, mine.id)).stops_at == MONDAY + timedelta(hours=18)
    at(clock, 18, 1)
    await keep_schedules(db)
    with pytest.raises(Conflict, match="does not run"):
        await extend_run(db, run.run_id, actor=ADMIN)


async def test_the_line_ends_with_the_class(db: Database, clock) -> None:
    await begun(db, clock)
    for number in (1, 2):
        await claim(db, number)
    waiting = await claim(db, 3)
    at(clock, 17, 1)
    await keep_schedules(db)
    assert (await get_claim(db, waiting.id)).status is ClaimStatus.EXPIRED


@pytest.mark.parametrize(("minute", "status"), [(29, RunStatus.RUNNING), (31, RunStatus.MISSED)])
async def test_a_class_missed_while_the_server_was_down_is_caught_up_or_reported(
    db: Database, clock, minute: int, status: RunStatus
) -> None:
    await scheduled(db, clock)
    at(clock, 8, minute)
    await keep_schedules(db)
    note = None if status is RunStatus.RUNNING else "the server was not running at its time"
    assert await runs(db) == [(status, note)]
    assert len(await list_operations(db)) == (status is RunStatus.RUNNING)
    assert (await kinds(db))[1] == ("schedule.begun" if status is RunStatus.RUNNING else "schedule.missed")


async def test_after_a_week_without_a_server_each_missed_class_is_reported_and_today_is_held(
    db: Database, clock
) -> None:
    await scheduled(db, clock)
    at(clock, 8, 5, day=7)
    await keep_schedules(db)
    missed = [(RunStatus.MISSED, "the server was not running at its time")] * 4
    assert await runs(db, days=8) == [*missed, (RunStatus.RUNNING, None)]


async def test_a_stop_missed_while_the_server_was_down_still_warns_before_it_ends_a_seat(db: Database, clock) -> None:
    await begun(db, clock)
    mine = await claim(db, 1)
    at(clock, 21)
    await keep_schedules(db)
    assert await keep_times(db) == 0
    at(clock, 21, 14)
    await keep_schedules(db)
    assert await keep_times(db) == 0
    assert (await get_claim(db, mine.id)).warned_again_at is not None
    at(clock, 21, 16)
    assert await keep_times(db) == 1


async def test_the_next_day_opens_the_pool_again_but_not_one_that_was_closed_by_hand(db: Database, clock) -> None:
    await begun(db, clock)
    at(clock, 17, 1)
    await keep_schedules(db)
    assert (await get_pool(db, "lab")).status is PoolStatus.CLOSED
    at(clock, 7, 55, day=2)
    await keep_schedules(db)
    assert (await get_pool(db, "lab")).status is PoolStatus.OPEN
    await set_pool_open(db, "lab", is_open=False, actor=ADMIN)
    at(clock, 17, 1, day=2)
    await keep_schedules(db)
    at(clock, 7, 55, day=3)
    for _ in range(3):
        await keep_schedules(db)
    assert (await kinds(db)).count("schedule.refused") == 1
    assert (await runs(db, days=4))[-1] == (RunStatus.PLANNED, "the pool lab was closed by hand")
    at(clock, 8, 20, day=3)
    await set_pool_open(db, "lab", is_open=True, actor=ADMIN)
    await keep_schedules(db)
    assert (await runs(db, days=4))[-1] == (RunStatus.RUNNING, None)


async def test_a_spent_budget_keeps_a_class_from_beginning_until_the_fuse_is_lifted(db: Database, clock) -> None:
    await scheduled(db, clock)
    await set_budget(db, "lab", 0.01, actor=ADMIN)
    async with db.transaction() as session:
        await session.execute(text("UPDATE pools SET price_per_hour = 1"))
    await begin_by_hand(db, 1)
    at(clock, 7, 55)
    await watch_budgets(db)
    await keep_schedules(db)
    ((status, note),) = await runs(db)
    assert status is RunStatus.PLANNED
    assert "is spent" in str(note)
    await lift_fuse(db, "lab", actor=ADMIN)
    await keep_schedules(db)
    assert await runs(db) == [(RunStatus.RUNNING, None)]


async def test_a_class_that_follows_at_once_takes_over_the_machines_and_the_seats(db: Database, clock) -> None:
    await begun(db, clock)
    evening = {"name": "Evening", "starts": time(18), "stops": time(21), "skips": frozenset()}
    values = {name: getattr(SPEC, name) for name in SPEC.__slots__} | evening
    await create_schedule(db, "lab", ScheduleSpec(**values), actor=ADMIN)  # type: ignore[arg-type]
    mine = await claim(db, 1)
    for minute in (46, 51, 61):
        at(clock, 16, minute)
        await keep_schedules(db)
        await keep_times(db)
    assert (await get_claim(db, mine.id)).stops_at is None
    assert await status_of(db, "lab-002") == "available"
    assert await runs(db) == [(RunStatus.ENDED, "another class of the pool goes on"), (RunStatus.RUNNING, None)]


async def test_a_failed_destroy_is_tried_again_later_not_at_once(db: Database, clock) -> None:
    await begun(db, clock)
    at(clock, 17, 1)
    for _ in range(2):
        await keep_schedules(db)
    destroys = [each for each in await list_operations(db) if each.kind is OperationKind.DESTROY]
    await request_cancel(db, destroys[0].id, actor=ADMIN)
    await keep_schedules(db)
    assert len([each for each in await list_operations(db) if each.kind is OperationKind.DESTROY]) == 1
    at(clock, 17, 7)
    await keep_schedules(db)
    assert len([each for each in await list_operations(db) if each.kind is OperationKind.DESTROY]) == 2


async def test_machines_that_joined_or_are_kept_for_a_look_are_not_taken_away(db: Database, clock) -> None:
    await begun(db, clock)
    async with db.transaction() as session:
        await session.execute(text("UPDATE vms SET origin = 'joined' WHERE hostname = 'lab-001'"))
        await session.execute(text("UPDATE vms SET status = 'quarantined' WHERE hostname = 'lab-002'"))
    at(clock, 17, 1)
    for _ in range(3):
        await keep_schedules(db)
    assert await runs(db) == [(RunStatus.ENDED, None)]
    assert (await status_of(db, "lab-001"), await status_of(db, "lab-002")) == ("available", "quarantined")


async def test_a_paused_or_removed_schedule_begins_nothing_and_a_resumed_one_looks_ahead_only(
    db: Database, clock
) -> None:
    await scheduled(db, clock)
    await keep_schedules(db)
    (schedule,) = await list_schedules(db)
    await pause_schedule(db, schedule.id, is_paused=True, actor=ADMIN)
    at(clock, 8, 5)
    await keep_schedules(db)
    assert await runs(db) == []
    await pause_schedule(db, schedule.id, is_paused=False, actor=ADMIN)
    await keep_schedules(db)
    assert await runs(db, days=5) == [(RunStatus.PLANNED, None)] * 3
    await remove_schedule(db, schedule.id, actor=ADMIN)
    at(clock, 8, 5, day=2)
    await keep_schedules(db)
    assert await list_operations(db) == []
    with pytest.raises(NotFound):
        await remove_schedule(db, schedule.id, actor=Actor.admin("kim"))
