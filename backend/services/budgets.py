"""Budgets: what a pool may cost, the warnings on the way, and the fuse that stops further launches when it is spent.

What runs keeps running: the fuse takes no machine from anybody. Only an admin lifts it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.errors import Conflict, InvalidInput, NotFound
from backend.models import Budget, Pool
from backend.services.actor import Actor
from backend.services.costs import sum_pool_costs
from backend.services.moves import record_event
from backend.services.pools import get_pool_row

WARN_AT_PCT = (50, 80, 100)
MAX_DOLLARS = 10_000_000
_RULE = Actor.rule("budget")


@dataclass(frozen=True, slots=True)
class BudgetView:
    """A pool's budget in US dollars. ``is_fused``: nothing is launched; ``is_lifted``: an admin said to go on."""

    pool_id: int
    pool: str
    dollars: float
    spent: float
    counts_from: datetime
    is_fused: bool
    is_lifted: bool

    @property
    def spent_pct(self) -> float:
        """How much of it is spent; above 100 when more than all is."""
        return 100 * self.spent / self.dollars


async def list_budgets(db: Database) -> list[BudgetView]:
    """All budgets with what is spent now, by pool."""
    query = select(Budget, Pool.name).join(Pool, Pool.id == Budget.pool_id).order_by(Pool.name)
    async with db.transaction() as session:
        rows = (await session.execute(query)).all()
        return [await _view(session, budget, name, db.now()) for budget, name in rows]


async def set_budget(
    db: Database, pool_name: str, dollars: float, *, is_from_now: bool = False, actor: Actor
) -> BudgetView:
    """Gives a pool a budget, or another one; what is spent is counted from the first one on, or from now on anew.

    Raises:
        NotFound: no such pool.
        InvalidInput: not between a cent and ten million dollars.
    """
    actor.must_administer()
    if not 0.01 <= dollars <= MAX_DOLLARS:
        raise InvalidInput(f"A budget is from 0.01 to {MAX_DOLLARS:,} dollars.", code="invalid_budget")
    async with db.transaction() as session:
        pool, now = await get_pool_row(session, pool_name, lock=True), db.now()
        budget = await session.get(Budget, pool.id, with_for_update=True)
        if budget is None:
            budget = Budget(pool_id=pool.id, counts_from=now)
            session.add(budget)
        budget.dollars = Decimal(str(dollars)).quantize(Decimal("0.01"))
        budget.counts_from = now if is_from_now else budget.counts_from
        budget.warned_pct, budget.fused_at, budget.lifted_at = 0, None, None
        message = f"Pool {pool.name} may cost ${dollars:,.2f}, counted from {budget.counts_from:%Y-%m-%d %H:%M} UTC"
        record_event(session, "budget.set", message, actor=actor, at=now, pool_id=pool.id)
        # Not left to the sweep: a budget below what is spent holds from this moment.
        await _apply(session, budget, pool, now)
        return await _view(session, budget, pool.name, now)


async def remove_budget(db: Database, pool_name: str, *, actor: Actor) -> None:
    """Takes a pool's budget away, and with it the fuse.

    Raises:
        NotFound: no such pool, or it has no budget.
    """
    actor.must_administer()
    async with db.transaction() as session:
        pool, budget = await _lock(session, pool_name)
        await session.delete(budget)
        message = f"Pool {pool.name} has no budget any more"
        record_event(session, "budget.removed", message, actor=actor, at=db.now(), pool_id=pool.id)


async def lift_fuse(db: Database, pool_name: str, *, actor: Actor) -> BudgetView:
    """Lets a pool launch again though its budget is spent, until it gets another budget.

    Raises:
        NotFound: no such pool, or it has no budget.
        Conflict: the budget is not spent.
    """
    actor.must_administer()
    async with db.transaction() as session:
        pool, budget = await _lock(session, pool_name)
        if budget.fused_at is None:
            raise Conflict(f"The budget of pool '{pool.name}' is not spent.", code="not_spent")
        if budget.lifted_at is None:
            budget.lifted_at = db.now()
            message = f"Pool {pool.name} may go on although its budget of ${budget.dollars:,.2f} is spent"
            record_event(session, "budget.lifted", message, actor=actor, at=db.now(), pool_id=pool.id)
        return await _view(session, budget, pool.name, db.now())


async def watch_budgets(db: Database) -> int:
    """Tells of budgets that are half, nearly or wholly spent, and opens the fuse of the latter. Returns how many."""
    async with db.transaction() as session:
        pool_ids = list(await session.scalars(select(Budget.pool_id).where(Budget.warned_pct < WARN_AT_PCT[-1])))
    return sum([await _watch(db, pool_id) for pool_id in pool_ids])


async def _watch(db: Database, pool_id: int) -> bool:
    async with db.transaction() as session:
        query = select(Budget, Pool).join(Pool, Pool.id == Budget.pool_id).where(Budget.pool_id == pool_id)
        # Skipped if another process is at it: it says the same.
        row = (await session.execute(query.with_for_update(of=Budget, skip_locked=True))).one_or_none()
        return row is not None and await _apply(session, row.Budget, row.Pool, db.now())


async def _apply(session: AsyncSession, budget: Budget, pool: Pool, now: datetime) -> bool:
    """Brings a locked budget up to what is spent; of several warnings only the highest is told."""
    spent = await sum_pool_costs(session, pool.id, since=budget.counts_from, now=now)
    reached = max((pct for pct in WARN_AT_PCT if spent * 100 >= float(budget.dollars) * pct), default=0)
    if reached <= budget.warned_pct:
        return False
    budget.warned_pct = reached
    message = f"{reached} % of the budget of pool {pool.name} is spent: ${spent:,.2f} of ${budget.dollars:,.2f}"
    if reached == WARN_AT_PCT[-1]:
        budget.fused_at = now
        message += "; nothing more is launched until an admin lifts the fuse"
    kind = "budget.spent" if budget.fused_at else "budget.warned"
    record_event(session, kind, message, actor=_RULE, at=now, pool_id=pool.id, data={"pct": reached})
    return True


async def _lock(session: AsyncSession, pool_name: str) -> tuple[Pool, Budget]:
    pool = await get_pool_row(session, pool_name, lock=True)
    budget = await session.get(Budget, pool.id, with_for_update=True)
    if budget is None:
        raise NotFound(f"The pool '{pool.name}' has no budget.", code="no_budget")
    return pool, budget


async def _view(session: AsyncSession, budget: Budget, pool: str, now: datetime) -> BudgetView:
    return BudgetView(
        pool_id=budget.pool_id,
        pool=pool,
        dollars=float(budget.dollars),
        spent=await sum_pool_costs(session, budget.pool_id, since=budget.counts_from, now=now),
        counts_from=budget.counts_from,
        is_fused=budget.fused_at is not None and budget.lifted_at is None,
        is_lifted=budget.lifted_at is not None,
    )
