"""Events: read the history."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, fields
from datetime import datetime

from sqlalchemy import Select, func, or_, select

from backend.db.engine import Database
from backend.models import Event, Pool, Vm
from backend.services.views import EventView

# What a kind begins with, by what people ask for.
EVENT_GROUPS: Mapping[str, tuple[str, ...]] = {
    "machines": ("vm", "enrolment", "command"),
    "seats": ("claim", "seat", "terminal", "crd"),
    "operations": ("operation",),
    "alarms": ("alarm", "budget"),
    "pools": ("pool", "join_code", "roster", "rehearsal"),
    "people": ("user", "invite", "token", "session", "key"),
}
BATCH = 1_000
# Not whole rows: 200 of them, read for every event while a class arrives, take three times as long.
_COLUMNS = tuple(getattr(Event, field.name) for field in fields(EventView))


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events: all conditions that are given hold. ``about`` is part of a pool's or a machine's name."""

    group: str | None = None
    actor: str | None = None
    about: str | None = None
    words: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    vm_id: int | None = None
    after_id: int = 0


@dataclass(frozen=True, slots=True)
class NamedEvent:
    """An event with the names of its pool and its machine, for lists that leave the house."""

    event: EventView
    pool: str | None
    vm: str | None


async def list_events(
    db: Database,
    wanted: EventFilter | None = None,
    *,
    vm_id: int | None = None,
    words: str | None = None,
    before_id: int | None = None,
    limit: int = 200,
) -> list[EventView]:
    """Events, newest first: those that are ``wanted``, of one VM, with ``words``, or all; older than ``before_id``."""
    wanted = wanted or EventFilter(words=words, vm_id=vm_id)
    query = _narrow(select(*_COLUMNS), wanted).order_by(Event.id.desc()).limit(limit)
    if before_id is not None:
        query = query.where(Event.id < before_id)
    async with db.transaction() as session:
        return [EventView(*row) for row in await session.execute(query)]


async def iterate_events(db: Database, wanted: EventFilter, *, limit: int | None = None) -> AsyncIterator[NamedEvent]:
    """Events with names, oldest first, up to the newest of now; read in batches, so that no transaction lasts long."""
    last_id = 0
    async with db.transaction() as session:
        newest_id = await session.scalar(select(func.max(Event.id))) or 0
    query = (
        _narrow(select(*_COLUMNS, Pool.name, Vm.hostname), wanted)
        .outerjoin(Pool, Pool.id == Event.pool_id)
        .outerjoin(Vm, Vm.id == Event.vm_id)
        .where(Event.id <= newest_id)
        .order_by(Event.id)
    )
    left = limit
    while left is None or left > 0:
        size = BATCH if left is None else min(BATCH, left)
        async with db.transaction() as session:
            rows = (await session.execute(query.where(Event.id > last_id).limit(size))).all()
        for *event, pool, vm in rows:
            yield NamedEvent(EventView(*event), pool, vm)
        if len(rows) < size:
            return
        last_id = rows[-1].id
        left = None if left is None else left - len(rows)


def _narrow(query: Select, wanted: EventFilter) -> Select:  # type: ignore[type-arg]
    if wanted.vm_id is not None:
        query = query.where(Event.vm_id == wanted.vm_id)
    if wanted.after_id:
        query = query.where(Event.id > wanted.after_id)
    if wanted.group:
        query = query.where(func.split_part(Event.kind, ".", 1).in_(EVENT_GROUPS.get(wanted.group, ())))
    if wanted.actor:
        query = query.where(Event.actor.icontains(wanted.actor, autoescape=True))
    if wanted.since:
        query = query.where(Event.at >= wanted.since)
    if wanted.until:
        query = query.where(Event.at < wanted.until)
    if wanted.about:
        pools = select(Pool.id).where(Pool.name.icontains(wanted.about, autoescape=True))
        vms = select(Vm.id).where(Vm.hostname.icontains(wanted.about, autoescape=True))
        query = query.where(Event.pool_id.in_(pools) | Event.vm_id.in_(vms))
    if wanted.words:
        columns = (Event.message, Event.actor, Event.kind)
        query = query.where(or_(*(column.icontains(wanted.words, autoescape=True) for column in columns)))
    return query
