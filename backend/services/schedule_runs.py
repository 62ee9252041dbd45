"""The classes of schedules by the clock: planned one ahead, begun in time, warned of, stopped, and given back.

Every step locks its class and looks again, so that two processes that sweep at once do it once. A stop takes no
machine from anybody unwarned: it closes the pool, ends its line, gives every seat an end that was told 15 minutes
before (``claim_times``), and takes the machines away as they become free.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.errors import Conflict, NotFound
from backend.models import Claim, Operation, Pool, Schedule, ScheduleRun, Vm
from backend.services.actor import Actor
from backend.services.claim_times import WARNING_S
from backend.services.destroys import destroy_free
from backend.services.fuses import find_fuse
from backend.services.lead_times import MOST_S, find_lead_s
from backend.services.moves import move_claim, record_event
from backend.services.operations import launch
from backend.services.recurrence import find_next
from backend.services.schedules import rule_of
from backend.states import (
    GONE_VM,
    HOLDING_CLAIM,
    ClaimStatus,
    OperationKind,
    OperationStatus,
    Origin,
    PoolStatus,
    RunStatus,
    VmStatus,
)

RULE = Actor.rule("schedule")
DEFAULT_LEAD_S = 600
# A machine that could not be destroyed is tried again after that.
RETRY_S = 300
# Classes that were missed are reported one after the other, at most so many in one sweep.
MAX_MISSED = 50
_SERVES = (VmStatus.AVAILABLE, VmStatus.IN_USE, VmStatus.PROVISIONING, VmStatus.BOOTING, VmStatus.CLEANING)
_GOING_ON = (RunStatus.PLANNED, RunStatus.RUNNING)


async def keep_schedules(db: Database, *, default_lead_s: int = DEFAULT_LEAD_S) -> int:
    """Plans, begins, warns of and stops what is due. Returns how many classes moved on."""
    moved = 0
    for _ in range(MAX_MISSED):
        for schedule_id in await _list_unplanned(db):
            await _plan(db, schedule_id)
        steps = [await _step(db, run_id, default_lead_s) for run_id in await _list_due(db)]
        moved += sum(steps)
        if not any(steps):
            break
    return moved


async def extend_run(db: Database, run_id: int, *, by_s: int = 3_600, actor: Actor) -> datetime:
    """A class that runs goes on longer, and so do its seats. Returns its new end.

    Raises:
        NotFound: no such class.
        Conflict: it does not run.
    """
    actor.must_operate()
    async with db.transaction() as session:
        run = await session.get(ScheduleRun, run_id, with_for_update=True)
        if run is None:
            raise NotFound("There is no such class.", code="unknown_class")
        if run.status != RunStatus.RUNNING:
            raise Conflict("This class does not run. Open the pool to go on.", code="class_over")
        run.stops_at += timedelta(seconds=by_s)
        await _free_seats(session, run.pool_id)
        schedule = await session.get_one(Schedule, run.schedule_id)
        message = f"The class {schedule.name} goes on until {run.stops_at:%H:%M} UTC"
        record_event(session, "schedule.extended", message, actor=actor, at=db.now(), pool_id=run.pool_id)
        return run.stops_at


async def _list_unplanned(db: Database) -> Sequence[int]:
    planned = (
        select(ScheduleRun.id).where(ScheduleRun.schedule_id == Schedule.id, ScheduleRun.status.in_(_GOING_ON)).exists()
    )
    query = select(Schedule.id).where(Schedule.removed_at.is_(None), Schedule.paused_at.is_(None), ~planned)
    async with db.transaction() as session:
        return (await session.scalars(query.order_by(Schedule.id))).all()


async def _plan(db: Database, schedule_id: int) -> None:
    """Writes down the next class. Two that plan at once write the same one."""
    async with db.transaction() as session:
        query = select(Schedule).where(Schedule.id == schedule_id).with_for_update(skip_locked=True)
        schedule = await session.scalar(query)
        if schedule is None or schedule.removed_at is not None or schedule.paused_at is not None:
            return
        last = await session.scalar(
            select(func.max(ScheduleRun.starts_at)).where(ScheduleRun.schedule_id == schedule_id)
        )
        after = schedule.counts_from
        if last is not None:
            after = max(after, last + timedelta(seconds=1))
        window = find_next(rule_of(schedule), after)
        if window is None:
            return
        values = {"starts_at": window.starts_at, "stops_at": window.stops_at, "status": RunStatus.PLANNED}
        row = insert(ScheduleRun).values(schedule_id=schedule_id, pool_id=schedule.pool_id, **values)
        await session.execute(row.on_conflict_do_nothing())


async def _list_due(db: Database) -> Sequence[int]:
    """What may have something to do; those that begin come before those that stop, so that one takes over."""
    now = db.now()
    is_near = (ScheduleRun.status == RunStatus.PLANNED) & (ScheduleRun.starts_at <= now + timedelta(seconds=MOST_S))
    is_late = (ScheduleRun.status == RunStatus.RUNNING) & (ScheduleRun.stops_at <= now + timedelta(seconds=WARNING_S))
    query = select(ScheduleRun.id).where(is_near | is_late | (ScheduleRun.status == RunStatus.STOPPING))
    async with db.transaction() as session:
        return (await session.scalars(query.order_by(ScheduleRun.status, ScheduleRun.starts_at))).all()


async def _step(db: Database, run_id: int, default_lead_s: int) -> bool:
    async with db.transaction() as session:
        # Skipped if another process is at it.
        query = select(ScheduleRun).where(ScheduleRun.id == run_id).with_for_update(skip_locked=True)
        run = await session.scalar(query)
        if run is None:
            return False
        was = run.status
        schedule = await session.get_one(Schedule, run.schedule_id)
        if run.status == RunStatus.PLANNED:
            await _begin_if_due(session, db, run, schedule, default_lead_s)
        elif run.status == RunStatus.RUNNING:
            await _warn_or_stop(session, db, run, schedule)
        elif run.status == RunStatus.STOPPING:
            await _give_back(session, db, run, schedule)
        return run.status != was


async def _begin_if_due(
    session: AsyncSession, db: Database, run: ScheduleRun, schedule: Schedule, default_lead_s: int
) -> None:
    now = db.now()
    lead_s = await find_lead_s(session, run.pool_id, default_s=default_lead_s)
    if now < run.starts_at - timedelta(seconds=lead_s):
        return
    if now >= min(run.stops_at, run.starts_at + timedelta(seconds=schedule.catch_up_s + 1)):
        run.status, run.note = RunStatus.MISSED, run.note or "the server was not running at its time"
        _record(session, run, "missed", f"The class {schedule.name} was missed: {run.note}", now)
        return
    pool = await session.get_one(Pool, run.pool_id, with_for_update=True)
    why = await _find_refusal(session, pool)
    if why is None:
        await _begin(session, db, run, schedule, pool)
    elif why != run.note:
        # It is tried again until it may no longer be caught up.
        run.note = why
        _record(session, run, "refused", f"The class {schedule.name} cannot begin: {why}", now)


async def _find_refusal(session: AsyncSession, pool: Pool) -> str | None:
    if pool.status == PoolStatus.CLOSED:
        stopped = select(ScheduleRun.id).where(ScheduleRun.pool_id == pool.id, ScheduleRun.stopped_at == pool.closed_at)
        if await session.scalar(stopped.limit(1)) is None:
            return f"the pool {pool.name} was closed by hand"
    return await find_fuse(session, pool)


async def _begin(session: AsyncSession, db: Database, run: ScheduleRun, schedule: Schedule, pool: Pool) -> None:
    now = db.now()
    former = update(ScheduleRun).where(ScheduleRun.pool_id == pool.id, ScheduleRun.status == RunStatus.STOPPING)
    await session.execute(former.values(status=RunStatus.ENDED, note="the next class took over its machines"))
    if pool.status == PoolStatus.CLOSED:
        pool.status, pool.closed_at, pool.updated_at = PoolStatus.OPEN, None, now
        record_event(session, "pool.open", f"Pool {pool.name} is open", actor=RULE, at=now, pool_id=pool.id)
    await _free_seats(session, pool.id)
    serving, living = await _count(session, pool.id)
    missing = min(schedule.count - serving, pool.max - living)
    if missing > 0:
        await launch(session, db, pool, missing, actor=RULE)
    run.status, run.started_at, run.note = RunStatus.RUNNING, now, None
    said = f"The class {schedule.name} begins at {run.starts_at:%H:%M} UTC: {max(0, missing)} machines are launched"
    if serving + max(0, missing) < schedule.count:
        run.note = f"only {serving + max(0, missing)} of {schedule.count} machines fit in the pool"
        said += f"; {run.note}"
    _record(session, run, "begun", said, now)


async def _count(session: AsyncSession, pool_id: int) -> tuple[int, int]:
    """How many machines serve or soon will, and how many there are."""
    serving = func.count().filter(Vm.status.in_(_SERVES), Vm.unreachable_since.is_(None))
    query = select(serving, func.count()).where(Vm.pool_id == pool_id, Vm.status.not_in(GONE_VM))
    row = (await session.execute(query)).one()
    return row[0], row[1]


async def _warn_or_stop(session: AsyncSession, db: Database, run: ScheduleRun, schedule: Schedule) -> None:
    now = db.now()
    if await _find_other(session, run) is not None:
        if now >= run.stops_at:
            run.status, run.stopped_at, run.note = RunStatus.ENDED, now, "another class of the pool goes on"
            _record(session, run, "stopped", f"The class {schedule.name} is over; {run.note}", now)
        return
    await _end_seats_at(session, run)
    if now >= run.stops_at:
        await _stop(session, run, schedule, now)


async def _stop(session: AsyncSession, run: ScheduleRun, schedule: Schedule, now: datetime) -> None:
    pool = await session.get_one(Pool, run.pool_id, with_for_update=True)
    if pool.status == PoolStatus.OPEN:
        # The same moment in both: so it is known who closed it.
        pool.status, pool.closed_at, pool.updated_at = PoolStatus.CLOSED, now, now
        record_event(session, "pool.closed", f"Pool {pool.name} is closed", actor=RULE, at=now, pool_id=pool.id)
    waiting = select(Claim).where(Claim.pool_id == pool.id, Claim.status == ClaimStatus.WAITING).order_by(Claim.id)
    for claim in await session.scalars(waiting.with_for_update(skip_locked=True)):
        move_claim(session, claim, ClaimStatus.EXPIRED, actor=RULE, at=now, reason="the class is over")
    run.status, run.stopped_at = RunStatus.STOPPING, now
    late_s = (now - run.stops_at).total_seconds()
    said = f"; {late_s / 60:.0f} minutes late" if late_s > 60 else ""
    _record(session, run, "stopped", f"The class {schedule.name} is over: free machines are given back{said}", now)


async def _give_back(session: AsyncSession, db: Database, run: ScheduleRun, schedule: Schedule) -> None:
    now, pool = db.now(), await session.get_one(Pool, run.pool_id, with_for_update=True)
    if pool.status == PoolStatus.OPEN:
        await _free_seats(session, pool.id)
        run.status, run.note = RunStatus.ENDED, "the pool was opened again by hand"
        return
    await _end_seats_at(session, run)
    if not await _has_just_failed(session, pool.id, now):
        await destroy_free(session, db, pool.id, actor=RULE)
        await session.flush()
    left = select(Vm.id).where(
        Vm.pool_id == pool.id,
        Vm.origin == Origin.TERRAFORM,
        # What is kept for a look stays.
        Vm.status.not_in({*GONE_VM, VmStatus.QUARANTINED}),
    )
    if await session.scalar(left.limit(1)) is None:
        run.status = RunStatus.ENDED
        _record(session, run, "ended", f"Nothing of the class {schedule.name} is left", now)


async def _has_just_failed(session: AsyncSession, pool_id: int, now: datetime) -> bool:
    query = select(Operation.id).where(
        Operation.pool_id == pool_id,
        Operation.kind == OperationKind.DESTROY,
        Operation.requested_by == RULE.name,
        Operation.status != OperationStatus.SUCCEEDED,
        Operation.finished_at > now - timedelta(seconds=RETRY_S),
    )
    return await session.scalar(query.limit(1)) is not None


async def _find_other(session: AsyncSession, run: ScheduleRun) -> int | None:
    """Another class of this pool that runs, and goes on longer (of two that end together, the one made later)."""
    goes_on = (ScheduleRun.stops_at > run.stops_at) | (
        (ScheduleRun.stops_at == run.stops_at) & (ScheduleRun.id > run.id)
    )
    running = (ScheduleRun.pool_id == run.pool_id, ScheduleRun.status == RunStatus.RUNNING, ScheduleRun.id != run.id)
    found: int | None = await session.scalar(select(ScheduleRun.id).where(*running, goes_on).limit(1))
    return found


async def _end_seats_at(session: AsyncSession, run: ScheduleRun) -> None:
    """Tells every seat of the pool when the class ends; one that its holder has kept longer stays so."""
    seats = update(Claim).where(Claim.pool_id == run.pool_id, Claim.status.in_(HOLDING_CLAIM))
    await session.execute(seats.where(Claim.stops_at.is_(None)).values(stops_at=run.stops_at))


async def _free_seats(session: AsyncSession, pool_id: int) -> None:
    """The end of a class is none any more."""
    seats = update(Claim).where(Claim.pool_id == pool_id, Claim.stops_at.is_not(None))
    values = {"stops_at": None, "warned_at": None, "warned_again_at": None}
    await session.execute(seats.where(Claim.status.in_(HOLDING_CLAIM)).values(**values))


def _record(session: AsyncSession, run: ScheduleRun, kind: str, message: str, at: datetime) -> None:
    record_event(session, f"schedule.{kind}", message, actor=RULE, at=at, pool_id=run.pool_id)
