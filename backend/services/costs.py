"""Costs: what runs now, what today came to, and what a launch would add. US dollars; nothing is billed by these."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, select, text

from backend.db.engine import Database
from backend.models import Vm
from backend.services.pools import check_open, get_pool_row
from backend.states import GONE_VM, VmStatus


@dataclass(frozen=True, slots=True)
class Costs:
    """``per_hour``: of all VMs that exist; ``today``: since midnight UTC, the gone ones included."""

    per_hour: float
    today: float


@dataclass(frozen=True, slots=True)
class LaunchPreview:
    """What a launch would do. ``room``: how many VMs still fit; ``problem``: why it would be refused."""

    hostnames: tuple[str, ...]
    room: int
    per_hour: float
    per_day: float
    problem: str | None


async def get_costs(db: Database) -> Costs:
    """The sums over all pools."""
    midnight = db.now().replace(hour=0, minute=0, second=0, microsecond=0)
    async with db.transaction() as session:
        row = (await session.execute(_COSTS, {"midnight": midnight, "now": db.now()})).one()
    return Costs(float(row.per_hour), float(row.today))


async def preview_launch(db: Database, pool_name: str, count: int) -> LaunchPreview:
    """What launching ``count`` VMs would make and cost. Changes nothing.

    Raises:
        NotFound, Conflict: no such pool, or it is closed.
    """
    async with db.transaction() as session:
        pool = await get_pool_row(session, pool_name)
        check_open(pool)
        living = select(func.count()).where(Vm.pool_id == pool.id, Vm.status.not_in(GONE_VM))
        room = max(0, pool.max - (await session.scalar(living) or 0))
    numbers = range(pool.next_number, pool.next_number + max(0, count))
    problem = None
    if count < 1:
        problem = "Launch at least one machine."
    elif count > room:
        problem = f"Only {room} more fit: the pool takes {pool.max} machines."
    per_hour = float(pool.price_per_hour) * max(0, count)
    hours = timedelta(days=1) / timedelta(hours=1)
    return LaunchPreview(
        tuple(f"{pool.name}-{number:03d}" for number in numbers[:1_000]), room, per_hour, per_hour * hours, problem
    )


# A VM that never left "provisioning" or failed there may never have existed; counted all the same: better too high.
_COSTS = text(f"""
SELECT coalesce(sum(price_per_hour) FILTER (WHERE status <> '{VmStatus.DESTROYED}'), 0) AS per_hour,
       coalesce(sum(price_per_hour * extract(epoch FROM
           coalesce(destroyed_at, cast(:now AS timestamptz)) - greatest(created_at, cast(:midnight AS timestamptz))
       ) / 3600), 0) AS today
FROM vms WHERE destroyed_at IS NULL OR destroyed_at > cast(:midnight AS timestamptz)""")
