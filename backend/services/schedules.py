"""Schedules: make, pause, remove, look up; what becomes of them by the clock stands in ``schedule_runs``."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime, time

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.errors import InvalidInput, NotFound
from backend.models import Pool, Schedule, ScheduleRun
from backend.services.actor import Actor
from backend.services.moves import record_event
from backend.services.pools import get_pool_row
from backend.services.recurrence import Recurrence, Window, describe_days, find_next, find_zone, list_windows
from backend.states import RunStatus

MAX_SKIPS, MAX_NAME = 180, 80


@dataclass(frozen=True, slots=True)
class ScheduleSpec:
    """What an organiser says about a class. Times are of the clocks in ``zone``; weekdays count from 0, Monday.

    ``catch_up_s``: how late a class may still be begun if the server was down; later it is reported as missed.
    """

    name: str
    zone: str
    weekdays: tuple[int, ...]
    starts: time
    stops: time
    first_on: date
    last_on: date | None = None
    skips: frozenset[date] = field(default_factory=frozenset)
    count: int = 1
    catch_up_s: int = 1_800


@dataclass(frozen=True, slots=True)
class ScheduleView:
    """A schedule as people see it. ``next``: its next class, if it has one."""

    id: int
    pool_id: int
    pool: str
    name: str
    rule: Recurrence
    count: int
    catch_up_s: int
    is_paused: bool
    created_by: str
    counts_from: datetime
    next: Window | None

    @property
    def times(self) -> str:
        """``Mon to Fri 09:00 to 18:00 Europe/Berlin``."""
        rule = self.rule
        return f"{describe_days(rule.weekdays)} {rule.starts:%H:%M} to {rule.stops:%H:%M} {rule.zone}"


@dataclass(frozen=True, slots=True)
class RunView:
    """One class: planned, running, or what became of it. ``run_id`` is None while it is only a date to come."""

    run_id: int | None
    schedule_id: int
    schedule: str
    pool: str
    zone: str
    status: RunStatus
    starts_at: datetime
    stops_at: datetime
    count: int
    note: str | None


async def create_schedule(db: Database, pool_name: str, spec: ScheduleSpec, *, actor: Actor) -> ScheduleView:
    """Makes a schedule; what was due before this moment is none of its business.

    Raises:
        NotFound: no such pool.
        InvalidInput: a figure is out of range, or no class would ever come of it.
    """
    actor.must_operate()
    async with db.transaction() as session:
        pool, now = await get_pool_row(session, pool_name), db.now()
        _check(spec, pool, now)
        schedule = Schedule(
            pool_id=pool.id,
            name=spec.name.strip(),
            zone=spec.zone,
            weekdays=sorted(set(spec.weekdays)),
            starts=spec.starts,
            stops=spec.stops,
            first_on=spec.first_on,
            last_on=spec.last_on,
            skips=sorted(spec.skips),
            count=spec.count,
            catch_up_s=spec.catch_up_s,
            created_by=actor.name,
            created_at=now,
            counts_from=now,
        )
        session.add(schedule)
        await session.flush()
        view = _view(schedule, pool.name, now)
        message = f"Schedule {schedule.name} of pool {pool.name} was made: {spec.count} machines {view.times}"
        record_event(session, "schedule.created", message, actor=actor, at=now, pool_id=pool.id)
        return view


async def remove_schedule(db: Database, schedule_id: int, *, actor: Actor) -> None:
    """Ends a schedule. A class that runs goes on, and is stopped at its time.

    Raises:
        NotFound: no such schedule.
    """
    actor.must_operate()
    async with db.transaction() as session:
        schedule = await _lock(session, schedule_id)
        schedule.removed_at = db.now()
        await _forget_planned(session, schedule_id)
        _note(session, schedule, "schedule.removed", f"Schedule {schedule.name} was removed", actor, db.now())


async def pause_schedule(db: Database, schedule_id: int, *, is_paused: bool, actor: Actor) -> None:
    """Pauses a schedule, or lets it go on with what comes from now on.

    Raises:
        NotFound: no such schedule.
    """
    actor.must_operate()
    async with db.transaction() as session:
        schedule, now = await _lock(session, schedule_id), db.now()
        if (schedule.paused_at is not None) == is_paused:
            return
        schedule.paused_at, schedule.counts_from = (now, schedule.counts_from) if is_paused else (None, now)
        await _forget_planned(session, schedule_id)
        kind = "paused" if is_paused else "resumed"
        _note(session, schedule, f"schedule.{kind}", f"Schedule {schedule.name} was {kind}", actor, now)


async def list_schedules(db: Database) -> list[ScheduleView]:
    """All schedules, by name."""
    query = (
        select(Schedule, Pool.name)
        .join(Pool, Pool.id == Schedule.pool_id)
        .where(Schedule.removed_at.is_(None))
        .order_by(Schedule.name, Schedule.id)
    )
    async with db.transaction() as session:
        rows = (await session.execute(query)).all()
    return [_view(schedule, pool, db.now()) for schedule, pool in rows]


async def list_calendar(db: Database, after: datetime, before: datetime) -> list[RunView]:
    """The classes that begin between two moments: what became of those that were, and those to come."""
    query = (
        select(ScheduleRun, Schedule, Pool.name)
        .join(Schedule, Schedule.id == ScheduleRun.schedule_id)
        .join(Pool, Pool.id == ScheduleRun.pool_id)
        .where(ScheduleRun.starts_at >= after, ScheduleRun.starts_at < before)
    )
    async with db.transaction() as session:
        rows = (await session.execute(query)).all()
    known = {(run.schedule_id, run.starts_at) for run, _, _ in rows}
    found = [_run_view(run, schedule, pool) for run, schedule, pool in rows]
    for view in await list_schedules(db):
        if not view.is_paused:
            windows = list_windows(view.rule, max(after, view.counts_from), before)
            found += [_dated(view, each) for each in windows if (view.id, each.starts_at) not in known]
    return sorted(found, key=lambda each: (each.starts_at, each.schedule, each.schedule_id))


def rule_of(schedule: Schedule) -> Recurrence:
    """When the classes of a row are."""
    return Recurrence(
        schedule.zone,
        tuple(schedule.weekdays),
        schedule.starts,
        schedule.stops,
        schedule.first_on,
        schedule.last_on,
        frozenset(schedule.skips),
    )


def _check(spec: ScheduleSpec, pool: Pool, now: datetime) -> None:
    find_zone(spec.zone)
    limits: list[tuple[bool, str]] = [
        (1 <= len(spec.name.strip()) <= MAX_NAME, f"A schedule's name has 1 to {MAX_NAME} letters"),
        (bool(spec.weekdays) and set(spec.weekdays) <= set(range(7)), "Choose at least one weekday"),
        (spec.starts != spec.stops, "A class must end at another time than it begins"),
        (1 <= spec.count <= pool.max, f"The number of machines is from 1 to {pool.max}, the most of its pool"),
        (0 <= spec.catch_up_s <= 86_400, "A class may be caught up within 0 to 1,440 minutes"),
        (len(spec.skips) <= MAX_SKIPS, f"At most {MAX_SKIPS} dates can be skipped"),
    ]
    for holds, sentence in limits:
        if not holds:
            raise InvalidInput(sentence + ".", code="invalid_schedule")
    rule = Recurrence(spec.zone, spec.weekdays, spec.starts, spec.stops, spec.first_on, spec.last_on, spec.skips)
    if find_next(rule, now) is None:
        raise InvalidInput("No class would ever come of this within two years: look at its dates.", code="no_class")


async def _lock(session: AsyncSession, schedule_id: int) -> Schedule:
    schedule = await session.get(Schedule, schedule_id, with_for_update=True)
    if schedule is None or schedule.removed_at is not None:
        raise NotFound(f"There is no schedule {schedule_id}.", code="unknown_schedule")
    return schedule


async def _forget_planned(session: AsyncSession, schedule_id: int) -> None:
    planned = (ScheduleRun.schedule_id == schedule_id, ScheduleRun.status == RunStatus.PLANNED)
    await session.execute(delete(ScheduleRun).where(*planned))


def _note(session: AsyncSession, schedule: Schedule, kind: str, message: str, actor: Actor, at: datetime) -> None:
    record_event(session, kind, message, actor=actor, at=at, pool_id=schedule.pool_id)


def _view(schedule: Schedule, pool: str, now: datetime) -> ScheduleView:
    rule, is_paused = rule_of(schedule), schedule.paused_at is not None
    return ScheduleView(
        id=schedule.id,
        pool_id=schedule.pool_id,
        pool=pool,
        name=schedule.name,
        rule=rule,
        count=schedule.count,
        catch_up_s=schedule.catch_up_s,
        is_paused=is_paused,
        created_by=schedule.created_by,
        counts_from=schedule.counts_from,
        next=None if is_paused else find_next(rule, now),
    )


def _run_view(run: ScheduleRun, schedule: Schedule, pool: str) -> RunView:
    return RunView(
        run.id,
        schedule.id,
        schedule.name,
        pool,
        schedule.zone,
        RunStatus(run.status),
        run.starts_at,
        run.stops_at,
        schedule.count,
        run.note,
    )


def _dated(view: ScheduleView, window: Window) -> RunView:
    return RunView(
        None,
        view.id,
        view.name,
        view.pool,
        view.rule.zone,
        RunStatus.PLANNED,
        window.starts_at,
        window.stops_at,
        view.count,
        None,
    )
