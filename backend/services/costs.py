"""Costs: what runs now, what today came to, and what a launch would add. US dollars; nothing is billed by these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.errors import InvalidInput
from backend.models import Vm
from backend.services.fuses import find_fuse
from backend.services.pools import check_open, get_pool_row
from backend.services.prices import PriceView, find_price
from backend.states import GONE_VM, VmStatus

DAY_HOURS = 24.0
MOST_HOURS = 8_784.0


@dataclass(frozen=True, slots=True)
class Costs:
    """``per_hour``: of all VMs that exist; ``today``: since midnight UTC, the gone ones included."""

    per_hour: float
    today: float
    by_pool: Mapping[int, Costs] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LaunchPreview:
    """What a launch would do. ``room``: how many VMs still fit; ``problem``: why it would be refused.

    ``price`` is one VM's (None: not known); ``planned`` is what ``hours`` of all of them come to.
    """

    hostnames: tuple[str, ...]
    room: int
    price: PriceView | None
    per_hour: float
    per_day: float
    hours: float
    planned: float
    problem: str | None


async def get_costs(db: Database) -> Costs:
    """The sums over all pools, and of each."""
    midnight = db.now().replace(hour=0, minute=0, second=0, microsecond=0)
    async with db.transaction() as session:
        rows = (await session.execute(_COSTS, {"midnight": midnight, "now": db.now()})).all()
    by_pool = {row.pool_id: Costs(float(row.per_hour), float(row.today)) for row in rows}
    return Costs(sum(each.per_hour for each in by_pool.values()), sum(each.today for each in by_pool.values()), by_pool)


async def sum_pool_costs(session: AsyncSession, pool_id: int, *, since: datetime, now: datetime) -> float:
    """What the VMs of one pool came to from ``since`` to ``now``, the gone ones included."""
    return float(await session.scalar(_POOL_COSTS, {"pool_id": pool_id, "since": since, "now": now}) or 0)


async def preview_launch(db: Database, pool_name: str, count: int, *, hours: float = DAY_HOURS) -> LaunchPreview:
    """What launching ``count`` VMs would make, and cost in ``hours``. Changes nothing.

    Raises:
        NotFound, Conflict: no such pool, or it is closed.
        InvalidInput: hours are not from 0 to a year's.
    """
    if not 0 <= hours <= MOST_HOURS:
        raise InvalidInput(f"hours must be from 0 to {MOST_HOURS:,.0f}.")
    async with db.transaction() as session:
        pool = await get_pool_row(session, pool_name)
        check_open(pool)
        living = select(func.count()).where(Vm.pool_id == pool.id, Vm.status.not_in(GONE_VM))
        room = max(0, pool.max - (await session.scalar(living) or 0))
        price = await find_price(session, pool)
        fuse = await find_fuse(session, pool)
    numbers = range(pool.next_number, pool.next_number + max(0, count))
    problem = fuse
    if fuse is None and count < 1:
        problem = "Launch at least one machine."
    elif fuse is None and count > room:
        problem = f"Only {room} more fit: the pool takes {pool.max} machines."
    per_hour = (price.per_hour if price else 0.0) * max(0, count)
    return LaunchPreview(
        hostnames=tuple(f"{pool.name}-{number:03d}" for number in numbers[:1_000]),
        room=room,
        price=price,
        per_hour=per_hour,
        per_day=per_hour * DAY_HOURS,
        hours=hours,
        planned=per_hour * hours,
        problem=problem,
    )


_POOL_COSTS = text("""
SELECT sum(price_per_hour * extract(epoch FROM
    coalesce(destroyed_at, cast(:now AS timestamptz)) - greatest(created_at, cast(:since AS timestamptz))) / 3600)
FROM vms WHERE pool_id = :pool_id AND (destroyed_at IS NULL OR destroyed_at > cast(:since AS timestamptz))""")
# A VM that never left "provisioning" or failed there may never have existed; counted all the same: better too high.
_COSTS = text(f"""
SELECT pool_id,
       coalesce(sum(price_per_hour) FILTER (WHERE status <> '{VmStatus.DESTROYED}'), 0) AS per_hour,
       coalesce(sum(price_per_hour * extract(epoch FROM
           coalesce(destroyed_at, cast(:now AS timestamptz)) - greatest(created_at, cast(:midnight AS timestamptz))
       ) / 3600), 0) AS today
FROM vms WHERE destroyed_at IS NULL OR destroyed_at > cast(:midnight AS timestamptz)
GROUP BY pool_id""")
