"""Rehearsals: the evening before, robots sit at every machine, the arrivals are replayed, and a verdict is given."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database, violated_constraint
from backend.errors import Conflict, NotFound
from backend.models import Pool, Rehearsal, RehearsalMachine, Vm
from backend.services.actor import Actor
from backend.services.moves import record_event
from backend.services.pools import get_pool_row
from backend.services.rehearsal_arrivals import WANTED
from backend.services.rehearsal_need import Expected, Need, find_need
from backend.services.rehearsal_robots import release_orphans
from backend.services.rehearsal_steps import skip_machine
from backend.services.rehearsal_verdict import NOT_WANTED, Reason, RehearsedMachine
from backend.states import GONE_VM, RehearsalStatus, RehearsalStep, Verdict, VmStatus

# So many of a pool are kept.
KEPT = 20
_NOT_REHEARSED = GONE_VM | {VmStatus.DESTROYING}


@dataclass(frozen=True, slots=True)
class RehearsalRules:
    """How robots behave: how many hold a machine of a pool at once; durations in seconds.

    ``default_lead_s``: how long machines are thought to boot while too few were measured.
    """

    at_once: int = 3
    check_deadline_s: int = 60
    deadline_s: int = 3_600
    default_lead_s: int = 600


@dataclass(frozen=True, slots=True)
class RehearsalView:
    """A rehearsal as people see it. ``arrivals`` is what became of the replay: its ``state``, then its figures."""

    id: int
    pool_id: int
    pool: str
    status: RehearsalStatus
    expected: Expected
    created_by: str
    created_at: datetime
    ended_at: datetime | None
    reason: str | None
    verdict: Verdict | None
    need: Need
    machines: tuple[RehearsedMachine, ...]
    arrivals: dict[str, Any]
    reasons: tuple[Reason, ...]


async def start_rehearsal(
    db: Database, pool_name: str, expected: Expected, rules: RehearsalRules, *, with_arrivals: bool, actor: Actor
) -> RehearsalView:
    """Begins a rehearsal of a pool; robots take it up within moments.

    Raises:
        NotFound: no such pool.
        InvalidInput: a figure is out of range.
        Conflict: one of this pool is under way, or the pool is a rehearsal's own.
    """
    actor.must_operate()
    now = db.now()
    expected.check(now)
    try:
        async with db.transaction() as session:
            pool = await get_pool_row(session, pool_name)
            if pool.is_rehearsal:
                raise Conflict("This pool is a rehearsal's own.", code="rehearsal_pool")
            need = await find_need(session, pool, expected, default_lead_s=rules.default_lead_s)
            rehearsal = Rehearsal(
                pool_id=pool.id,
                status=RehearsalStatus.RUNNING,
                people=expected.people,
                over_s=expected.over_s,
                starts_at=expected.starts_at,
                zone=expected.zone,
                created_by=actor.name,
                created_at=now,
                deadline_at=now + timedelta(seconds=rules.deadline_s),
                need=need.as_json(),
                arrivals={"state": WANTED if with_arrivals else NOT_WANTED},
            )
            session.add(rehearsal)
            await session.flush()
            await _add_machines(session, rehearsal, now)
            await _forget_old(session, pool.id)
            message = f"A rehearsal of pool {pool.name} begins: {expected.people} people are expected"
            note_event(session, rehearsal, "rehearsal.began", message, actor, now)
            return await _view(session, rehearsal)
    except IntegrityError as exc:
        if violated_constraint(exc) == "uq_rehearsals_running":
            raise Conflict(f"A rehearsal of pool '{pool_name}' is under way.", code="rehearsal_running") from exc
        raise


async def end_rehearsal(db: Database, rehearsal_id: int, *, actor: Actor) -> RehearsalView:
    """Breaks a rehearsal off; robots give their machines back. One that is over stays as it is.

    Raises:
        NotFound: no such rehearsal.
    """
    actor.must_operate()
    async with db.transaction() as session:
        rehearsal = await lock_rehearsal(session, rehearsal_id)
        if rehearsal.status == RehearsalStatus.RUNNING:
            rehearsal.status, rehearsal.ended_at = RehearsalStatus.ENDED, db.now()
            rehearsal.reason = f"broken off by {actor.name.rpartition(':')[2]}"
            note_event(session, rehearsal, "rehearsal.ended", f"A rehearsal was {rehearsal.reason}", actor, db.now())
    for machine in await list_open_machines(db, rehearsal_id):
        await skip_machine(db, machine, why="the rehearsal was broken off")
    await release_orphans(db)
    return await get_rehearsal(db, rehearsal_id)


async def get_rehearsal(db: Database, rehearsal_id: int) -> RehearsalView:
    """One rehearsal.

    Raises:
        NotFound: no such rehearsal.
    """
    async with db.transaction() as session:
        rehearsal = await session.get(Rehearsal, rehearsal_id)
        if rehearsal is None:
            raise NotFound(f"There is no rehearsal {rehearsal_id}.", code="unknown_rehearsal")
        return await _view(session, rehearsal)


async def find_last_rehearsal(db: Database, pool_id: int) -> RehearsalView | None:
    """The newest of a pool."""
    query = select(Rehearsal).where(Rehearsal.pool_id == pool_id).order_by(Rehearsal.id.desc()).limit(1)
    async with db.transaction() as session:
        rehearsal = await session.scalar(query)
        return None if rehearsal is None else await _view(session, rehearsal)


async def preview_need(db: Database, pool_name: str, expected: Expected, *, default_lead_s: int) -> Need:
    """What a class would need of this pool, as it stands now.

    Raises:
        NotFound: no such pool.
        InvalidInput: a figure is out of range.
    """
    expected.check(db.now())
    async with db.transaction() as session:
        pool = await get_pool_row(session, pool_name)
        return await find_need(session, pool, expected, default_lead_s=default_lead_s)


async def _add_machines(session: AsyncSession, rehearsal: Rehearsal, at: datetime) -> None:
    vms = select(Vm.id).where(Vm.pool_id == rehearsal.pool_id, Vm.status.not_in(_NOT_REHEARSED)).order_by(Vm.hostname)
    for vm_id in await session.scalars(vms):
        session.add(RehearsalMachine(rehearsal_id=rehearsal.id, vm_id=vm_id, step=RehearsalStep.WAITING, step_at=at))
    await session.flush()


async def _forget_old(session: AsyncSession, pool_id: int) -> None:
    kept = select(Rehearsal.id).where(Rehearsal.pool_id == pool_id).order_by(Rehearsal.id.desc()).limit(KEPT)
    await session.execute(delete(Rehearsal).where(Rehearsal.pool_id == pool_id, Rehearsal.id.not_in(kept)))


async def list_open_machines(db: Database, rehearsal_id: int) -> list[RehearsalMachine]:
    """The rows of the machines that are not done, for services only."""
    query = select(RehearsalMachine).where(
        RehearsalMachine.rehearsal_id == rehearsal_id, RehearsalMachine.ended_at.is_(None)
    )
    async with db.transaction() as session:
        return list(await session.scalars(query.order_by(RehearsalMachine.id)))


async def list_machines(session: AsyncSession, rehearsal_id: int) -> list[RehearsedMachine]:
    """How each machine does, by hostname."""
    query = (
        select(RehearsalMachine, Vm.hostname)
        .join(Vm, Vm.id == RehearsalMachine.vm_id)
        .where(RehearsalMachine.rehearsal_id == rehearsal_id)
        .order_by(Vm.hostname)
    )
    return [
        RehearsedMachine(
            hostname,
            RehearsalStep(row.step),
            row.step_at,
            row.connection,
            row.said,
            row.problem,
            row.remedy,
            row.ended_at is not None,
        )
        for row, hostname in await session.execute(query)
    ]


async def lock_rehearsal(session: AsyncSession, rehearsal_id: int) -> Rehearsal:
    """The row, locked, for services only.

    Raises:
        NotFound: no such rehearsal.
    """
    rehearsal = await session.get(Rehearsal, rehearsal_id, with_for_update=True)
    if rehearsal is None:
        raise NotFound(f"There is no rehearsal {rehearsal_id}.", code="unknown_rehearsal")
    return rehearsal


def expected_of(rehearsal: Rehearsal) -> Expected:
    """Who is expected, by a row."""
    return Expected(rehearsal.people, rehearsal.over_s, rehearsal.starts_at, rehearsal.zone)


def note_event(
    session: AsyncSession, rehearsal: Rehearsal, kind: str, message: str, actor: Actor, at: datetime
) -> None:
    """Writes down what became of a rehearsal."""
    record_event(session, kind, message, actor=actor, at=at, pool_id=rehearsal.pool_id)


async def _view(session: AsyncSession, rehearsal: Rehearsal) -> RehearsalView:
    pool = await session.get_one(Pool, rehearsal.pool_id)
    return RehearsalView(
        id=rehearsal.id,
        pool_id=pool.id,
        pool=pool.name,
        status=RehearsalStatus(rehearsal.status),
        expected=expected_of(rehearsal),
        created_by=rehearsal.created_by,
        created_at=rehearsal.created_at,
        ended_at=rehearsal.ended_at,
        reason=rehearsal.reason,
        verdict=Verdict(rehearsal.verdict) if rehearsal.verdict else None,
        need=Need.of(rehearsal.need),
        machines=tuple(await list_machines(session, rehearsal.id)),
        arrivals=dict(rehearsal.arrivals),
        reasons=tuple(Reason(**each) for each in rehearsal.reasons or ()),
    )
