"""What the sweeps are told to look at: never less than there is to do, and nothing where all is at rest."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from sqlalchemy import text

from backend.db.engine import Database
from backend.services.claims import request_claim
from backend.services.duties import Duty, list_duties
from backend.services.operations import request_launch
from backend.services.pools import PoolSpec, ensure_pool
from backend.services.rehearsal_need import Expected
from backend.services.rehearsals import RehearsalRules, start_rehearsal
from backend.services.schedules import create_schedule
from tests.services.test_schedule_runs import SPEC
from tests.services.worlds import ADMIN, make_machines


async def sql(db: Database, *statements: str) -> None:
    async with db.transaction() as session:
        for statement in statements:
            await session.execute(text(statement))


async def seat(db: Database, *statements: str) -> None:
    """Somebody sits, or stands in line, at the only machine; then these statements."""
    await make_machines(db, 1)
    await request_claim(db, "lab", "ada@lab.org", owner_hash=b"a" * 32)
    await request_claim(db, "lab", "bob@lab.org", owner_hash=b"b" * 32)
    await sql(db, *statements)


async def machine(db: Database, statement: str) -> None:
    await make_machines(db, 1)
    await sql(db, statement)


async def rehearse(db: Database, *statements: str) -> None:
    await make_machines(db, 1)
    expected = Expected(1, 600, db.now() + timedelta(hours=12))
    await start_rehearsal(db, "lab", expected, RehearsalRules(), with_arrivals=True, actor=ADMIN)
    await sql(db, *statements)


async def schedule(db: Database, *statements: str) -> None:
    await ensure_pool(db, "lab", PoolSpec(max=10), actor=ADMIN)
    await create_schedule(db, "lab", SPEC, actor=ADMIN)
    await sql(db, *statements)


async def launch(db: Database, *statements: str) -> None:
    await ensure_pool(db, "lab", PoolSpec(max=10), actor=ADMIN)
    await request_launch(db, "lab", 1, actor=ADMIN)
    await sql(db, *statements)


ENDED = "UPDATE operations SET status = 'failed'"
SILENT = "UPDATE vms SET unreachable_since = now()"
WORLDS: dict[str, tuple[Callable[[Database], Awaitable[object]], set[Duty]]] = {
    "nothing": (lambda db: ensure_pool(db, "lab", PoolSpec(), actor=ADMIN), set()),
    "a machine": (lambda db: make_machines(db, 1), {Duty.SILENCE}),
    "a machine that is gone": (lambda db: machine(db, "UPDATE vms SET status = 'destroyed'"), set()),
    "one that boots": (lambda db: machine(db, "UPDATE vms SET status = 'booting'"), {Duty.SILENCE, Duty.DEADLINES}),
    "a silent one": (lambda db: machine(db, SILENT), {Duty.DEADLINES, Duty.HEALING}),
    "a failed one": (lambda db: machine(db, "UPDATE vms SET status = 'failed'"), {Duty.SILENCE, Duty.HEALING}),
    "one kept for a seat": (
        lambda db: machine(db, "UPDATE vms SET status = 'quarantined'"),
        {Duty.SILENCE, Duty.HEALING},
    ),
    "an open breaker": (
        lambda db: machine(
            db, "INSERT INTO healing_breakers (pool_id, opened_at, trials) SELECT id, now(), 0 FROM pools"
        ),
        {Duty.SILENCE, Duty.HEALING},
    ),
    "a seat and a line": (seat, {Duty.SILENCE, Duty.SEATS, Duty.DEADLINES}),
    "a line beside a free machine": (
        lambda db: seat(db, "UPDATE vms SET status = 'available'"),
        {Duty.SILENCE, Duty.SEATS, Duty.LINES, Duty.DEADLINES},
    ),
    "a robot whose rehearsal is over": (
        lambda db: seat(db, "UPDATE claims SET email = 'rehearsal-x@robot.invalid' WHERE status = 'preparing'"),
        {Duty.SILENCE, Duty.SEATS, Duty.DEADLINES, Duty.REHEARSALS},
    ),
    "a queued launch": (launch, {Duty.RUNS, Duty.SILENCE}),
    "a launch that ended": (lambda db: launch(db, ENDED, "DELETE FROM vms"), set()),
    "a job that somebody is at": (
        lambda db: launch(db, ENDED, "DELETE FROM vms", "UPDATE procrastinate_jobs SET status = 'doing'"),
        {Duty.RUNS},
    ),
    "a minimum": (lambda db: ensure_pool(db, "lab", PoolSpec(available_min=1), actor=ADMIN), {Duty.REFILLS}),
    "a schedule": (schedule, {Duty.SCHEDULES}),
    "a removed schedule": (lambda db: schedule(db, "UPDATE schedules SET removed_at = now()"), set()),
    "a rehearsal": (rehearse, {Duty.SILENCE, Duty.REHEARSALS, Duty.REPLAYS}),
    "a pool that a replay left": (
        lambda db: rehearse(db, "UPDATE rehearsals SET status = 'finished'", "UPDATE pools SET is_rehearsal = true"),
        {Duty.SILENCE, Duty.REPLAYS},
    ),
}


@pytest.mark.parametrize("name", WORLDS)
async def test_there_is_as_much_to_do_as_there_is_and_no_more(db: Database, name: str) -> None:
    make, due = WORLDS[name]
    await make(db)
    assert await list_duties(db) == due
