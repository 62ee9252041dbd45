"""Alarms: opened when a rule sees a cause, worsened when it matters more, resolved once the cause is gone a while."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Select, or_, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.models import Alarm, Pool
from backend.redaction import redact
from backend.services.actor import Actor
from backend.services.alarm_deliveries import queue_message
from backend.services.alarm_rules import Seen, see_all
from backend.services.healing_limits import HealingLimits
from backend.services.moves import record_event
from backend.setting_keys import AlarmSettings
from backend.states import AlarmKind, AlarmNews, Channel, Severity

# The source of what all processes see alike.
SHARED = "rules"
# That a cause is still there is written down this often: each write is a notice to every page.
SEEN_EVERY_S = 15
# A process that says nothing for so long says nothing any more.
SILENT_SOURCE_S = 600
RULES_LOCK = 0x4C4C0A1A
_RULE = Actor.rule("alarm")


@dataclass(frozen=True, slots=True)
class AlarmView:
    """An alarm as people see it. ``place`` is the path of the page where something can be done about it."""

    id: int
    kind: AlarmKind
    severity: Severity
    pool: str | None
    sentence: str
    remedy: str
    place: str
    opened_at: datetime
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    resolved_at: datetime | None


async def apply_rules(
    db: Database, limits: AlarmSettings, healing: HealingLimits, channels: Collection[Channel] = ()
) -> None:
    """Brings the alarms up to what the shared rules see now. Of several processes at once, one does it.

    ``healing``: how machines are mended, since those that are being mended ring later.
    """
    async with db.transaction() as session:
        if not await session.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": RULES_LOCK}):
            return
        at = db.now()
        await _settle(session, SHARED, await see_all(session, at, limits, healing), at, limits.quiet_s, channels)
        silent = at - timedelta(seconds=SILENT_SOURCE_S)
        orphans = select(Alarm).where(Alarm.source != SHARED, Alarm.resolved_at.is_(None), Alarm.last_seen_at < silent)
        for row in await session.scalars(orphans.with_for_update(skip_locked=True)):
            _resolve(session, row, at, channels)


async def record_own(
    db: Database, source: str, seen: Sequence[Seen], limits: AlarmSettings, channels: Collection[Channel] = ()
) -> None:
    """Brings the alarms of one process, which no other can know, up to what it sees of itself now."""
    async with db.transaction() as session:
        await _settle(session, source, seen, db.now(), limits.quiet_s, channels)


async def list_open_alarms(db: Database, ids: Collection[int] | None = None) -> list[AlarmView]:
    """The alarms whose cause is there (of these ids), the gravest first, then the oldest."""
    query = _query().where(Alarm.resolved_at.is_(None)).order_by(Alarm.opened_at, Alarm.id)
    if ids is not None:
        query = query.where(Alarm.id.in_(ids))
    async with db.transaction() as session:
        found = [_view_of(*row) for row in await session.execute(query)]
    return sorted(found, key=lambda alarm: -alarm.severity.rank)


async def list_recent_alarms(db: Database, *, limit: int = 100) -> list[AlarmView]:
    """The alarms that were resolved last, newest first."""
    query = _query().where(Alarm.resolved_at.is_not(None)).order_by(Alarm.resolved_at.desc(), Alarm.id.desc())
    async with db.transaction() as session:
        return [_view_of(*row) for row in await session.execute(query.limit(limit))]


async def acknowledge_alarms(db: Database, alarm_ids: Collection[int], *, actor: Actor) -> int:
    """Notes that somebody has seen to these; those that are resolved or acknowledged stay as they are.

    Returns how many it was.
    """
    actor.must_operate()
    async with db.transaction() as session:
        still = or_(Alarm.resolved_at.is_not(None), Alarm.acknowledged_at.is_not(None))
        rows = await session.scalars(
            select(Alarm).where(Alarm.id.in_(alarm_ids), ~still).order_by(Alarm.id).with_for_update()
        )
        found = rows.all()
        for row in found:
            row.acknowledged_at, row.acknowledged_by = db.now(), actor.name
            _record(session, row, "acknowledged", db.now(), actor)
        return len(found)


async def _settle(
    session: AsyncSession,
    source: str,
    seen: Sequence[Seen],
    at: datetime,
    quiet_s: float,
    channels: Collection[Channel],
) -> None:
    query = select(Alarm).where(Alarm.source == source, Alarm.resolved_at.is_(None)).with_for_update()
    held = {(row.kind, row.subject): row for row in await session.scalars(query)}
    for each in seen:
        row = held.pop((each.kind, each.subject), None)
        if row is None:
            await _open(session, source, each, at, channels)
        else:
            _refresh(session, row, each, at, channels)
    for row in held.values():
        if at - row.last_seen_at >= timedelta(seconds=quiet_s):
            _resolve(session, row, at, channels)


async def _open(session: AsyncSession, source: str, seen: Seen, at: datetime, channels: Collection[Channel]) -> None:
    row = Alarm(
        source=source,
        kind=seen.kind,
        subject=seen.subject,
        pool_id=seen.pool_id,
        operation_id=seen.operation_id,
        severity=seen.severity,
        sentence=redact(seen.sentence),
        remedy=seen.remedy,
        opened_at=at,
        last_seen_at=at,
    )
    session.add(row)
    await session.flush()
    _tell(session, row, AlarmNews.OPENED, at, channels)


def _refresh(session: AsyncSession, row: Alarm, seen: Seen, at: datetime, channels: Collection[Channel]) -> None:
    """Only what differs is written. Whoever acknowledged a lesser alarm has not seen this one."""
    is_worse = seen.severity.rank > Severity(row.severity).rank
    said = {"severity": seen.severity, "sentence": redact(seen.sentence), "remedy": seen.remedy}
    for name, value in said.items():
        if getattr(row, name) != value:
            setattr(row, name, value)
    if at - row.last_seen_at >= timedelta(seconds=SEEN_EVERY_S):
        row.last_seen_at = at
    if is_worse:
        row.acknowledged_at = row.acknowledged_by = None
        _tell(session, row, AlarmNews.WORSENED, at, channels)


def _resolve(session: AsyncSession, row: Alarm, at: datetime, channels: Collection[Channel]) -> None:
    row.resolved_at = at
    _tell(session, row, AlarmNews.RESOLVED, at, channels)


def _tell(session: AsyncSession, row: Alarm, news: AlarmNews, at: datetime, channels: Collection[Channel]) -> None:
    _record(session, row, news, at, _RULE)
    for channel in channels:
        queue_message(session, row, news, channel, place=_place_of(row, row.subject), at=at)


def _record(session: AsyncSession, row: Alarm, what: str, at: datetime, actor: Actor) -> None:
    message = f"Alarm {what}: {row.sentence}"
    data = {"alarm_id": row.id, "severity": row.severity}
    record_event(
        session,
        f"alarm.{what}",
        message,
        actor=actor,
        at=at,
        pool_id=row.pool_id,
        operation_id=row.operation_id,
        data=data,
    )


def _place_of(row: Alarm, pool: str | None) -> str:
    if row.operation_id is not None:
        return f"/admin/operations/{row.operation_id}"
    return {
        AlarmKind.MACHINE_FAILED: "/admin/instances?status=trouble",
        AlarmKind.REFILL: f"/admin/pools/{pool}",
        AlarmKind.HEALING: f"/admin/pools/{pool}",
        AlarmKind.LINE: f"/admin/create?pool={pool}",
        AlarmKind.BUDGET: "/admin/schedules",
    }.get(AlarmKind(row.kind), "/admin/alarms")


def _query() -> Select[Alarm, str | None]:
    return select(Alarm, Pool.name).select_from(Alarm).outerjoin(Pool, Pool.id == Alarm.pool_id)


def _view_of(row: Alarm, pool: str | None) -> AlarmView:
    return AlarmView(
        id=row.id,
        kind=AlarmKind(row.kind),
        severity=Severity(row.severity),
        pool=pool,
        sentence=row.sentence,
        remedy=row.remedy,
        place=_place_of(row, pool),
        opened_at=row.opened_at,
        acknowledged_at=row.acknowledged_at,
        acknowledged_by=row.acknowledged_by,
        resolved_at=row.resolved_at,
    )
