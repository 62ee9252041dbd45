"""Seats that end by themselves: by time and by idleness, warned before, and kept by one click."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backend.db.engine import Database
from backend.errors import Conflict
from backend.services.claim_times import extend_claim, find_end, keep_times, touch_claim
from backend.services.claims import get_claim
from backend.services.events import list_events
from backend.services.heartbeats import record_heartbeats
from backend.services.holders import Holder
from backend.services.pools import get_pool, spec_of, update_pool
from backend.states import ClaimStatus
from tests.services.test_claims import claim, owner
from tests.services.worlds import ADMIN, make_machines, obey, report, status_of

MINE = Holder(owner_hash=owner(1))


async def limit(db: Database, **times: int | None) -> None:
    spec = spec_of(await get_pool(db, "lab"))
    await update_pool(db, "lab", replace(spec, **times), actor=ADMIN)  # type: ignore[arg-type]


async def seated(db: Database, machines: int = 1, **times: int | None):
    reports = await make_machines(db, machines)
    await limit(db, **times)
    mine = await claim(db, 1)
    await obey(db, reports[0].vm_id)
    return mine, reports[0]


async def test_a_seat_without_limits_never_ends_and_cannot_be_extended(db: Database, clock) -> None:
    mine, _ = await seated(db)
    clock.advance(10 * 86_400)
    assert await keep_times(db) == 0
    with pytest.raises(Conflict):
        await extend_claim(db, mine.id, MINE)


async def test_a_seats_time_ends_with_a_warning_before_and_its_machine_is_cleaned(db: Database, clock) -> None:
    mine, machine = await seated(db, claim_duration_s=7_200)
    clock.advance(7_200 - 901)
    await keep_times(db)
    assert (await get_claim(db, mine.id)).warned_at is None
    clock.advance(2)
    await keep_times(db)
    assert (await get_claim(db, mine.id)).warned_at is not None
    clock.advance(898)
    assert await keep_times(db) == 0
    clock.advance(4)
    assert await keep_times(db) == 1
    ended = await get_claim(db, mine.id)
    assert (ended.status, ended.reason) == (ClaimStatus.EXPIRED, "its time is over")
    assert await status_of(db, "lab-m0") == "cleaning"
    assert await obey(db, machine.vm_id) == ["end_session"]
    kinds = [(event.kind, event.actor) for event in await list_events(db)]
    assert ("claim.expired", "rule:seat_time") in kinds
    assert ("claim.warned", "rule:seat_time") in kinds


async def test_one_click_gives_another_whole_duration_and_clicks_do_not_add_up(db: Database, clock) -> None:
    mine, _ = await seated(db, claim_duration_s=3_600)
    clock.advance(3_500)
    await keep_times(db)
    for _ in range(3):
        extended = await extend_claim(db, mine.id, MINE)
    assert extended.warned_at is None
    assert abs((extended.ends_at - db.now()).total_seconds() - 3_600) < 5
    clock.advance(3_000)
    await keep_times(db)
    clock.advance(720)
    assert await keep_times(db) == 1


async def test_nobody_loses_a_seat_unwarned_though_the_server_was_down_at_its_end(db: Database, clock) -> None:
    mine, _ = await seated(db, claim_duration_s=3_600)
    clock.advance(86_400)
    assert await keep_times(db) == 0
    now = await get_claim(db, mine.id)
    end = find_end(now, await get_pool(db, "lab"))
    assert end is not None
    assert abs((end.at - db.now()).total_seconds() - 720) < 5
    clock.advance(725)
    assert await keep_times(db) == 1


async def test_an_unused_seat_ends_and_one_in_use_stays(db: Database, clock) -> None:
    mine, _ = await seated(db, idle_limit_s=1_800)
    for _ in range(5):
        clock.advance(1_400)
        await touch_claim(db, mine.id)
        assert await keep_times(db) == 0
    clock.advance(1_500)
    await keep_times(db)
    assert (await get_claim(db, mine.id)).warned_at is not None
    # "I am still here", and so does any use.
    await touch_claim(db, mine.id)
    await keep_times(db)
    assert (await get_claim(db, mine.id)).warned_at is None
    clock.advance(1_500)
    await keep_times(db)
    clock.advance(400)
    assert await keep_times(db) == 1
    assert (await get_claim(db, mine.id)).reason == "nobody used it"


@pytest.mark.parametrize("work", [{"cpu_pct": 60.0}, {"gpus": ({"index": 0, "utilisation_pct": 40.0},)}])
async def test_a_machine_at_work_counts_as_used(db: Database, clock, work) -> None:
    mine, machine = await seated(db, idle_limit_s=1_800)
    clock.advance(1_750)
    await record_heartbeats(db, [report(db, machine.vm_id, machine.enrolment_id, **work)])
    await keep_times(db)
    clock.advance(1_000)
    await keep_times(db)
    assert (await get_claim(db, mine.id)).warned_at is None
    # What it reported long ago says nothing of now.
    clock.advance(700)
    await keep_times(db)
    assert (await get_claim(db, mine.id)).warned_at is not None


async def test_uses_are_written_once_a_minute(db: Database, clock) -> None:
    mine, _ = await seated(db, idle_limit_s=1_800)
    clock.advance(30)
    await touch_claim(db, mine.id)
    before = (await get_claim(db, mine.id)).last_active_at
    clock.advance(31)
    await touch_claim(db, mine.id)
    assert (await get_claim(db, mine.id)).last_active_at > before


async def test_typing_does_not_put_off_the_end_of_a_seats_time(db: Database, clock) -> None:
    mine, _ = await seated(db, claim_duration_s=3_600, idle_limit_s=1_800)
    for _ in range(40):
        clock.advance(100)
        await touch_claim(db, mine.id)
        if await keep_times(db):
            break
    assert (await get_claim(db, mine.id)).reason == "its time is over"


async def test_a_machine_at_work_does_not_put_off_the_end_of_a_seats_time(db: Database, clock) -> None:
    mine, machine = await seated(db, claim_duration_s=3_600, idle_limit_s=1_800)
    for _ in range(45):
        clock.advance(100)
        await record_heartbeats(db, [report(db, machine.vm_id, machine.enrolment_id, cpu_pct=90.0)])
        if await keep_times(db):
            break
    assert (await get_claim(db, mine.id)).reason == "its time is over"


async def test_a_rule_that_came_later_begins_when_it_came_and_one_taken_back_ends_no_seat(db: Database, clock) -> None:
    mine, _ = await seated(db)
    clock.advance(86_400)
    await limit(db, claim_duration_s=3_600, idle_limit_s=7_200)
    assert abs(((await get_claim(db, mine.id)).ends_at - db.now()).total_seconds() - 3_600) < 5
    await limit(db, claim_duration_s=None, idle_limit_s=None)
    clock.advance(86_400)
    assert await keep_times(db) == 0


async def test_who_waits_in_line_loses_no_time(db: Database, clock) -> None:
    _, machine = await seated(db, claim_duration_s=3_600)
    second = await claim(db, 2)
    clock.advance(3_500)
    await keep_times(db)
    clock.advance(721)
    assert await keep_times(db) == 1
    await obey(db, machine.vm_id)
    now = await get_claim(db, second.id)
    assert now.hostname == "lab-m0"
    assert abs((now.ends_at - db.now()).total_seconds() - 3_600) < 5
