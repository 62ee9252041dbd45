"""Alarms: each opens for its cause, stays while it is there, and is resolved by itself when it is gone."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import select, text

from backend.db.engine import Database
from backend.errors import Forbidden
from backend.models import AlarmDelivery
from backend.services.actor import Actor
from backend.services.alarm_rules import Seen
from backend.services.alarms import (
    SILENT_SOURCE_S,
    AlarmView,
    acknowledge_alarms,
    apply_rules,
    list_open_alarms,
    list_recent_alarms,
    record_own,
)
from backend.services.budgets import lift_fuse, set_budget, watch_budgets
from backend.services.claims import request_claim
from backend.services.events import list_events
from backend.services.healing_limits import HealingLimits
from backend.services.operations import request_launch
from backend.services.pools import PoolSpec, ensure_pool
from backend.services.refills import refill_pools
from backend.services.runs import begin_run, finish_run
from backend.setting_keys import AlarmSettings
from backend.states import AlarmKind, Channel, OperationStatus, Role, Severity
from tests.services.worlds import ADMIN, make_machines

LIMITS = AlarmSettings()
QUIET_S = LIMITS.quiet_s
# Nothing is mended by itself.
OFF = HealingLimits(at_once=0)


async def look(db: Database, channels: tuple[Channel, ...] = ()) -> list[AlarmView]:
    await apply_rules(db, LIMITS, OFF, channels)
    return await list_open_alarms(db)


async def sql(db: Database, statement: str) -> None:
    async with db.transaction() as session:
        await session.execute(text(statement))


async def fail_machines(db: Database, clock, *hostnames: str) -> None:
    names = ", ".join(f"'{name}'" for name in hostnames)
    await sql(db, f"UPDATE vms SET status = 'failed', reason = 'GPU 0 is gone' WHERE hostname IN ({names})")
    clock.advance(LIMITS.failed_after_s + 1)


async def run(db: Database, operation_id: int, status: OperationStatus) -> None:
    """Carries out an operation, which makes nothing."""
    assert await begin_run(db, operation_id, owner="test:1:1")
    reason = "no capacity" if status is OperationStatus.FAILED else None
    await finish_run(db, operation_id, owner="test:1:1", status=status, reason=reason, existing=())


async def test_failed_machines_are_one_alarm_a_pool_that_says_what_most_of_them_say(db: Database, clock) -> None:
    await make_machines(db, 12, "lab")
    await make_machines(db, 3, "vision")
    await fail_machines(db, clock, *(f"lab-m{number}" for number in range(5)), "vision-m1", "vision-m2")
    grave, mild = await look(db)
    assert (grave.pool, grave.severity) == ("vision", Severity.CRITICAL)
    assert (mild.pool, mild.severity) == ("lab", Severity.WARNING)
    assert (
        mild.sentence == "5 of 12 machines of pool lab have failed: lab-m0, lab-m1, lab-m2 and 2 more (GPU 0 is gone)."
    )


async def test_a_machine_that_is_mended_within_the_minute_is_no_alarm(db: Database, clock) -> None:
    await make_machines(db, 2)
    await fail_machines(db, clock, "lab-m0")
    clock.advance(-2)
    assert await look(db) == []


async def test_a_machine_that_waits_for_its_turn_of_mending_rings_only_once_that_takes_too_long(
    db: Database, clock
) -> None:
    await make_machines(db, 2)
    await fail_machines(db, clock, "lab-m0")
    await apply_rules(db, LIMITS, HealingLimits())
    assert await list_open_alarms(db) == []
    clock.advance(LIMITS.mending_after_s - LIMITS.failed_after_s)
    await apply_rules(db, LIMITS, HealingLimits())
    assert [each.kind for each in await list_open_alarms(db)] == [AlarmKind.MACHINE_FAILED]


@pytest.mark.parametrize(
    "held",
    [
        "UPDATE pools SET healing = '{\"at_once\": 0}'",
        "UPDATE pools SET status = 'closed'",
        'UPDATE vms SET facts = facts || \'{"drained_by": "admin:oli"}\'',
        "INSERT INTO healing_breakers (pool_id, opened_at, trials) SELECT id, now(), 0 FROM pools",
        (
            "INSERT INTO repairs (pool_id, vm_id, rung, is_last, began_at, deadline_at, ended_at, outcome)"
            " SELECT pool_id, id, 'reboot', true, '{at}', '{at}', '{at}', 'failed' FROM vms, generate_series(1, 3)"
        ),
    ],
    ids=["off", "closed", "drained", "stopped", "given up"],
)
async def test_a_machine_that_nothing_mends_rings_soon(db: Database, clock, held: str) -> None:
    await make_machines(db, 2)
    await fail_machines(db, clock, "lab-m0")
    await sql(db, held.replace("{at}", clock().isoformat()).replace(":", "\\:"))
    await apply_rules(db, LIMITS, HealingLimits())
    assert AlarmKind.MACHINE_FAILED in {each.kind for each in await list_open_alarms(db)}


async def test_an_alarm_is_resolved_once_its_cause_has_been_gone_for_a_while_and_not_before(
    db: Database, clock
) -> None:
    await make_machines(db, 4)
    await fail_machines(db, clock, "lab-m0")
    (alarm,) = await look(db)
    await sql(db, "UPDATE vms SET status = 'available', reason = NULL")
    clock.advance(QUIET_S - 1)
    assert [each.id for each in await look(db)] == [alarm.id]
    clock.advance(2)
    assert await look(db) == []
    (resolved,) = await list_recent_alarms(db)
    assert (resolved.id, resolved.resolved_at is not None) == (alarm.id, True)
    kinds = [event.kind for event in await list_events(db) if event.kind.startswith("alarm.")]
    assert kinds == ["alarm.resolved", "alarm.opened"]


async def test_a_cause_that_comes_and_goes_is_one_alarm(db: Database, clock) -> None:
    await make_machines(db, 4)
    await fail_machines(db, clock, "lab-m0")
    (alarm,) = await look(db)
    for status in ("available", "failed") * 3:
        await sql(db, f"UPDATE vms SET status = '{status}' WHERE hostname = 'lab-m0'")
        clock.advance(QUIET_S / 2)
        assert [each.id for each in await look(db)] == [alarm.id]


async def test_processes_that_look_at_once_open_one_alarm_and_tell_it_once(db: Database, clock) -> None:
    await make_machines(db, 2)
    await fail_machines(db, clock, "lab-m0")
    await asyncio.gather(*(apply_rules(db, LIMITS, OFF, (Channel.WEBHOOK,)) for _ in range(8)))
    assert len(await list_open_alarms(db)) == 1
    async with db.transaction() as session:
        assert await session.scalar(text("SELECT count(*) FROM alarm_deliveries")) == 1


async def test_what_is_acknowledged_rings_again_only_when_it_gets_worse(db: Database, clock) -> None:
    await make_machines(db, 8)
    await fail_machines(db, clock, "lab-m0")
    (alarm,) = await look(db)
    oli = Actor.admin("oli", role=Role.OPERATOR)
    assert await acknowledge_alarms(db, [alarm.id], actor=oli) == 1
    assert await acknowledge_alarms(db, [alarm.id], actor=ADMIN) == 0
    await fail_machines(db, clock, "lab-m1")
    (alarm,) = await look(db)
    assert (alarm.acknowledged_by, alarm.severity) == ("admin:oli", Severity.WARNING)
    await fail_machines(db, clock, "lab-m2", "lab-m3")
    (alarm,) = await look(db)
    assert (alarm.acknowledged_by, alarm.severity) == (None, Severity.CRITICAL)


async def test_a_viewer_acknowledges_nothing(db: Database) -> None:
    with pytest.raises(Forbidden):
        await acknowledge_alarms(db, [1], actor=Actor.admin("val", role=Role.VIEWER))


@pytest.mark.parametrize(
    ("people", "waited_s", "rings"), [(9, 0, False), (10, 0, True), (1, 599, False), (1, 601, True)]
)
async def test_a_line_that_is_long_or_slow_rings(db: Database, clock, people: int, waited_s: int, rings: bool) -> None:
    await ensure_pool(db, "lab", PoolSpec(), actor=ADMIN)
    for number in range(people):
        await request_claim(db, "lab", f"p{number}@lab.org", owner_hash=None)
    clock.advance(waited_s)
    assert [each.kind for each in await look(db)] == ([AlarmKind.LINE] if rings else [])


async def test_a_failed_operation_rings_until_the_next_of_its_kind_succeeds(db: Database, clock) -> None:
    await ensure_pool(db, "lab", PoolSpec(), actor=ADMIN)
    failed = await request_launch(db, "lab", 1, actor=ADMIN)
    await run(db, failed.id, OperationStatus.FAILED)
    operations = [each for each in await look(db) if each.kind is AlarmKind.OPERATION_FAILED]
    assert [(each.place, each.sentence) for each in operations] == [
        (f"/admin/operations/{failed.id}", "The launch in pool lab failed: no capacity.")
    ]
    better = await request_launch(db, "lab", 1, actor=ADMIN)
    await run(db, better.id, OperationStatus.SUCCEEDED)
    clock.advance(QUIET_S + 1)
    assert AlarmKind.OPERATION_FAILED not in {each.kind for each in await look(db)}


async def test_a_pool_whose_refills_fail_rings_even_while_the_next_one_runs(db: Database, clock) -> None:
    await ensure_pool(db, "lab", PoolSpec(available_min=2), actor=ADMIN)
    for _ in range(2):
        (refill,) = await refill_pools(db)
        assert await look(db) == []
        await run(db, refill, OperationStatus.FAILED)
        await sql(db, "UPDATE vms SET status = 'destroyed'")
        clock.advance(61)
    (refill,) = await refill_pools(db)
    (alarm,) = await look(db)
    assert (alarm.kind, alarm.severity) == (AlarmKind.REFILL, Severity.CRITICAL)
    assert alarm.sentence.endswith("0 of the 2 free machines that it shall hold: its last 2 launches failed.")
    await sql(db, "UPDATE vms SET status = 'available' WHERE status = 'provisioning'")
    clock.advance(QUIET_S + 1)
    assert await look(db) == []


async def test_a_pool_that_is_full_is_good_to_know(db: Database) -> None:
    await make_machines(db, 2)
    await sql(db, "UPDATE pools SET max = 2, available_min = 1")
    await sql(db, "UPDATE vms SET status = 'in-use'")
    (alarm,) = await look(db)
    assert (alarm.kind, alarm.severity) == (AlarmKind.REFILL, Severity.INFO)


async def test_a_budget_rings_louder_as_it_is_spent_and_is_quiet_once_the_fuse_is_lifted(db: Database, clock) -> None:
    await ensure_pool(db, "lab", PoolSpec(price_per_hour=1.0), actor=ADMIN)
    await set_budget(db, "lab", 10, actor=ADMIN)
    await request_launch(db, "lab", 1, actor=ADMIN)
    heard = []
    for _ in range(3):
        clock.advance(3.6 * 3_600)
        await watch_budgets(db)
        heard += [(each.id, each.severity) for each in await look(db)]
    assert [severity for _, severity in heard] == [Severity.INFO, Severity.CRITICAL]
    assert len({number for number, _ in heard}) == 1
    await lift_fuse(db, "lab", actor=ADMIN)
    clock.advance(QUIET_S + 1)
    assert await look(db) == []


async def test_what_one_process_says_of_itself_another_does_not_resolve_until_it_is_long_silent(
    db: Database, clock
) -> None:
    full = Seen(AlarmKind.SERVER, "disk", Severity.CRITICAL, "The disk is nearly full.", "Make room.")
    await record_own(db, "one:8080", [full], LIMITS)
    await record_own(db, "two:8080", [full], LIMITS)
    await record_own(db, "two:8080", [], LIMITS)
    clock.advance(QUIET_S + 1)
    await record_own(db, "two:8080", [], LIMITS)
    assert len(await look(db)) == 1
    clock.advance(SILENT_SOURCE_S)
    assert await look(db) == []


async def test_plain_sweeps_write_nothing_while_nothing_changes(db: Database, clock) -> None:
    await make_machines(db, 2)
    await fail_machines(db, clock, "lab-m0")
    await look(db)
    before = await versions(db)
    for _ in range(5):
        clock.advance(2)
        await look(db)
    assert await versions(db) == before


async def versions(db: Database) -> list[object]:
    async with db.transaction() as session:
        return list(await session.scalars(text("SELECT xmin::text FROM alarms")))


async def test_secrets_do_not_stand_in_alarms_nor_in_what_is_told_of_them(db: Database, clock) -> None:
    await make_machines(db, 2)
    await sql(db, "UPDATE vms SET reason = 'clone https://kim:hunter22@git.lab.org failed'")
    await sql(db, "UPDATE vms SET status = 'failed' WHERE hostname = 'lab-m0'")
    clock.advance(LIMITS.failed_after_s + 1)
    await apply_rules(db, LIMITS, OFF, tuple(Channel))
    async with db.transaction() as session:
        told = [str(each) for each in await session.scalars(select(AlarmDelivery.message))]
    said = [each.sentence for each in await list_open_alarms(db)] + [event.message for event in await list_events(db)]
    assert len(told) == 2
    assert not [each for each in (*told, *said) if "hunter22" in each]
