"""Refills: a pool that shall hold free VMs gets new ones by itself, and waits longer each time a launch fails."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.models import Operation, Pool, Vm
from backend.services.actor import Actor
from backend.services.emails import ROBOTS
from backend.services.fuses import find_fuse
from backend.services.operations import launch
from backend.states import GONE_VM, OPEN_OPERATION, OperationKind, OperationStatus, PoolStatus, VmStatus

RULE = Actor.rule("refill")
FIRST_PAUSE_S, LAST_PAUSE_S = 30, 1_800
_COMING = (VmStatus.AVAILABLE, VmStatus.PROVISIONING, VmStatus.BOOTING, VmStatus.CLEANING)


async def refill_pools(db: Database) -> list[int]:
    """Launches what each open pool lacks to its ``available_min``. Returns the ids of the operations it queued."""
    wanting = select(Pool.id).where(Pool.status == PoolStatus.OPEN, Pool.available_min > 0).order_by(Pool.id)
    async with db.transaction() as session:
        pool_ids = list(await session.scalars(wanting))
    return [operation_id for pool_id in pool_ids if (operation_id := await _refill(db, pool_id)) is not None]


async def _refill(db: Database, pool_id: int) -> int | None:
    async with db.transaction() as session:
        # Locked, so that two processes that sweep at once do not both launch.
        pool = await session.get(Pool, pool_id, with_for_update=True)
        if pool is None or pool.status != PoolStatus.OPEN:
            return None
        missing = await _count_missing(session, pool)
        if missing < 1 or await find_fuse(session, pool) or await _is_backing_off(session, db, pool_id):
            return None
        return (await launch(session, db, pool, missing, actor=RULE)).id


async def count_failed_refills(session: AsyncSession, pool_id: int) -> tuple[int, datetime | None]:
    """How many refills have failed in a row by now (ten at most), and when the last of them ended."""
    query = (
        select(Operation.status, Operation.finished_at)
        .where(
            Operation.pool_id == pool_id,
            Operation.kind == OperationKind.LAUNCH,
            Operation.requested_by == RULE.name,
            Operation.status.not_in(OPEN_OPERATION),
        )
        .order_by(Operation.id.desc())
        .limit(10)
    )
    failures, last_at = 0, None
    for status, finished_at in await session.execute(query):
        if status not in {OperationStatus.FAILED, OperationStatus.CANCELLED}:
            break
        failures, last_at = failures + 1, last_at or finished_at
    return failures, last_at


async def _count_missing(session: AsyncSession, pool: Pool) -> int:
    # What a robot holds is free for people within moments.
    is_robots = Vm.email.like(f"%{ROBOTS}")
    coming = func.count().filter(Vm.status.in_(_COMING) | is_robots, Vm.unreachable_since.is_(None))
    query = select(coming, func.count()).where(Vm.pool_id == pool.id, Vm.status.not_in(GONE_VM))
    soon_free, living = (await session.execute(query)).one()
    return min(pool.available_min - soon_free, pool.max - living)


async def _is_backing_off(session: AsyncSession, db: Database, pool_id: int) -> bool:
    """Whether the last refills failed so recently that another one would only fail again."""
    failures, last_at = await count_failed_refills(session, pool_id)
    pause_s = min(LAST_PAUSE_S, FIRST_PAUSE_S * 2 ** max(0, failures - 1))
    return last_at is not None and db.now() - last_at < timedelta(seconds=pause_s)
