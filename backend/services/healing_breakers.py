"""The breaker of a pool's healing: open once last rungs fail alike; one machine is tried then, and closes it.

All but ``close_breaker`` and the views are steps of the transaction that heals the pool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.errors import Conflict
from backend.models import HealingBreaker, Pool, Repair
from backend.services.actor import Actor
from backend.services.healing_ladder import Ended, find_alike, find_trial
from backend.services.healing_limits import HealingLimits
from backend.services.moves import record_event
from backend.services.pools import get_pool_row
from backend.states import RepairFault, RepairOutcome

RULE = Actor.rule("heal")
_LOOKED_AT = 200
FAULTS: Mapping[RepairFault, str] = {
    RepairFault.NOT_MADE: "new machines could not be made",
    RepairFault.NOT_WELL: "machines did not become fit for use",
    RepairFault.NOT_DESTROYED: "failed machines could not be destroyed",
}


@dataclass(frozen=True, slots=True)
class BreakerView:
    """The open breaker of a pool. ``trial_at``: when one machine is tried again."""

    pool_id: int
    opened_at: datetime
    reason: str
    trial_at: datetime
    trials: int


async def find_breaker(db: Database, pool_id: int) -> BreakerView | None:
    """The breaker of a pool, while it is open."""
    async with db.transaction() as session:
        return view_of_breaker(await session.get(HealingBreaker, pool_id))


async def close_breaker(db: Database, pool_name: str, *, actor: Actor) -> None:
    """Lets the machines of a pool be mended again at once; what failed before counts no more.

    Raises:
        NotFound: no such pool.
        Conflict: its breaker is not open.
    """
    actor.must_operate()
    async with db.transaction() as session:
        pool = await get_pool_row(session, pool_name)
        row = await session.get(HealingBreaker, pool.id, with_for_update=True)
        if row is None or row.opened_at is None:
            raise Conflict(f"The machines of pool '{pool.name}' are being mended already.", code="not_stopped")
        _close(session, row, pool, db.now(), actor=actor, why="closed by hand")


async def watch_breaker(
    session: AsyncSession, pool: Pool, limits: HealingLimits, at: datetime
) -> HealingBreaker | None:
    """Opens the breaker of a pool or closes it, by what its last attempts came to. Returns it while it is open."""
    row = await session.get(HealingBreaker, pool.id, with_for_update=True)
    ended = await _list_last_rungs(session, pool, row)
    if row is None or row.opened_at is None:
        fault = find_alike([_ended(each) for each in ended], limits)
        return _open(session, row, pool, limits, at, fault, ended) if fault else None
    opened_at = row.opened_at
    if await _has_worked(session, pool, opened_at):
        _close(session, row, pool, at, actor=RULE, why="a machine was mended again")
        return None
    tried = [each for each in ended if each.ended_at and row.trial_at and each.ended_at > row.trial_at]
    if tried:
        row.trials += 1
        row.trial_at = find_trial(row.trials, limits, at)
    return row


def view_of_breaker(row: HealingBreaker | None) -> BreakerView | None:
    """The picture of a row, if it is open."""
    if row is None or row.opened_at is None:
        return None
    return BreakerView(row.pool_id, row.opened_at, row.reason or "", row.trial_at or row.opened_at, row.trials)


def _open(
    session: AsyncSession,
    row: HealingBreaker | None,
    pool: Pool,
    limits: HealingLimits,
    at: datetime,
    fault: RepairFault,
    ended: Sequence[Repair],
) -> HealingBreaker:
    if row is None:
        row = HealingBreaker(pool_id=pool.id, trials=0)
        session.add(row)
    last = next((each.reason for each in ended if each.fault == fault and each.reason), None)
    row.reason = FAULTS[fault] + (f", the last time: {last}" if last else "")
    row.opened_at, row.trials, row.trial_at = at, 0, find_trial(0, limits, at)
    message = f"Healing stopped in pool {pool.name}: {row.reason}"
    record_event(session, "pool.healing_stopped", message, actor=RULE, at=at, pool_id=pool.id)
    return row


def _close(session: AsyncSession, row: HealingBreaker, pool: Pool, at: datetime, *, actor: Actor, why: str) -> None:
    row.opened_at = row.reason = row.trial_at = None
    row.trials, row.closed_at = 0, at
    message = f"Healing goes on in pool {pool.name}: {why}"
    record_event(session, "pool.healing_resumed", message, actor=actor, at=at, pool_id=pool.id)


async def _list_last_rungs(session: AsyncSession, pool: Pool, row: HealingBreaker | None) -> Sequence[Repair]:
    query = select(Repair).where(
        Repair.pool_id == pool.id,
        Repair.is_last,
        Repair.outcome.in_((RepairOutcome.SUCCEEDED, RepairOutcome.FAILED)),
    )
    if row is not None and row.closed_at is not None:
        query = query.where(Repair.began_at > row.closed_at)
    query = query.order_by(Repair.ended_at.desc(), Repair.id.desc()).limit(_LOOKED_AT)
    return (await session.scalars(query)).all()


async def _has_worked(session: AsyncSession, pool: Pool, since: datetime) -> bool:
    worked = select(Repair.id).where(
        Repair.pool_id == pool.id,
        Repair.outcome == RepairOutcome.SUCCEEDED,
        Repair.ended_at > since,
        # A mild rung that helps says nothing of the last one, unless it was tried since.
        Repair.is_last | (Repair.began_at > since),
    )
    return await session.scalar(worked.limit(1)) is not None


def _ended(row: Repair) -> Ended:
    assert row.ended_at is not None
    return Ended(row.ended_at, RepairFault(row.fault) if row.fault else None)
