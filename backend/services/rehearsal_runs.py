"""Rehearsals as they run: robots take their steps, what is needed is kept true, and in the end there is a verdict."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import select

from backend.db.engine import Database
from backend.models import Pool, Rehearsal, RehearsalMachine, Vm
from backend.services.pools import view_of
from backend.services.rehearsal_arrivals import RUNNING, WANTED
from backend.services.rehearsal_need import find_need
from backend.services.rehearsal_robots import HOLDING, RULE, give_way, release_orphans
from backend.services.rehearsal_steps import UP_SOON, skip_machine, take_step
from backend.services.rehearsal_verdict import Reason, judge
from backend.services.rehearsals import (
    RehearsalRules,
    expected_of,
    list_machines,
    list_open_machines,
    lock_rehearsal,
    note_event,
)
from backend.states import RehearsalStatus, RehearsalStep, VmStatus

_TIME_OVER = "the time of the rehearsal was over"


async def carry_on_rehearsals(db: Database, rules: RehearsalRules) -> None:
    """Takes every step that can be taken now, and gives the verdict where all is done. Robots nobody knows go."""
    async with db.transaction() as session:
        running = select(Rehearsal.id).where(Rehearsal.status == RehearsalStatus.RUNNING).order_by(Rehearsal.id)
        ids = list(await session.scalars(running))
    for rehearsal_id in ids:
        await _carry_on(db, rehearsal_id, rules)
    await release_orphans(db)


async def is_replay_wanted(db: Database, rehearsal_id: int) -> bool:
    """Whether the arrivals of a rehearsal shall be replayed still: nobody has broken it off, and it has time left."""
    async with db.transaction() as session:
        rehearsal = await session.get(Rehearsal, rehearsal_id)
        return (
            rehearsal is not None and rehearsal.status == RehearsalStatus.RUNNING and db.now() < rehearsal.deadline_at
        )


async def _carry_on(db: Database, rehearsal_id: int, rules: RehearsalRules) -> None:
    async with db.transaction() as session:
        rehearsal = await session.get_one(Rehearsal, rehearsal_id)
    if db.now() > rehearsal.deadline_at:
        for machine in await list_open_machines(db, rehearsal_id):
            await skip_machine(db, machine, why=_TIME_OVER)
    await give_way(db, rehearsal_id, rehearsal.pool_id)
    while await _take_steps(db, rehearsal_id, rules):
        pass
    await _conclude(db, rehearsal_id, rules)


async def _take_steps(db: Database, rehearsal_id: int, rules: RehearsalRules) -> bool:
    has_moved, machines = False, await list_open_machines(db, rehearsal_id)
    held = sum(machine.step in HOLDING for machine in machines)
    statuses = await _list_statuses(db, machines)
    for machine in machines:
        is_waiting = machine.step == RehearsalStep.WAITING
        may_claim, status = held < rules.at_once, statuses[machine.vm_id]
        # Not even locked: a person who claims would step over it.
        if is_waiting and status in UP_SOON and not (may_claim and status == VmStatus.AVAILABLE):
            continue
        if await take_step(db, machine, may_claim=may_claim, check_deadline_s=rules.check_deadline_s):
            has_moved = True
            held += is_waiting
    return has_moved


async def _conclude(db: Database, rehearsal_id: int, rules: RehearsalRules) -> None:
    """Keeps what is needed true, and gives the verdict once machines and arrivals are done."""
    async with db.transaction() as session:
        rehearsal = await lock_rehearsal(session, rehearsal_id)
        if rehearsal.status != RehearsalStatus.RUNNING:
            return
        pool = await session.get_one(Pool, rehearsal.pool_id)
        need = await find_need(session, pool, expected_of(rehearsal), default_lead_s=rules.default_lead_s)
        if rehearsal.need != need.as_json():
            rehearsal.need = need.as_json()
        machines = await list_machines(session, rehearsal_id)
        is_replaying = rehearsal.arrivals["state"] in {WANTED, RUNNING}
        if is_replaying or not all(machine.is_over for machine in machines):
            return
        verdict, reasons = judge(view_of(pool), need, machines, rehearsal.arrivals, now=db.now(), zone=rehearsal.zone)
        rehearsal.status, rehearsal.ended_at = RehearsalStatus.FINISHED, db.now()
        rehearsal.verdict, rehearsal.reasons = verdict, [each.as_json() for each in reasons]
        message = f"The rehearsal of pool {pool.name} says {verdict}: {_summary(reasons)}"
        note_event(session, rehearsal, "rehearsal.finished", message, RULE, db.now())


def _summary(reasons: Collection[Reason]) -> str:
    against = [each.what for each in reasons if each.is_against]
    return " ".join(against)[:1_000] or "nothing speaks against the class"


async def _list_statuses(db: Database, machines: Collection[RehearsalMachine]) -> dict[int, str]:
    query = select(Vm.id, Vm.status).where(Vm.id.in_([machine.vm_id for machine in machines]))
    async with db.transaction() as session:
        return {vm.id: vm.status for vm in await session.execute(query)}
