"""The fuse of a pool: open once its budget is spent, and nothing is launched any more."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from backend.errors import Conflict
from backend.models import Budget, Pool


async def find_fuse(session: AsyncSession, pool: Pool) -> str | None:
    """Why nothing may be launched in this pool, if its budget says so."""
    budget = await session.get(Budget, pool.id)
    if budget is None or budget.fused_at is None or budget.lifted_at is not None:
        return None
    return (
        f"The budget of pool '{pool.name}' (${budget.dollars:,.2f}) is spent: nothing more is launched until an admin "
        "lifts the fuse or sets another budget on the page Schedules."
    )


async def check_fuse(session: AsyncSession, pool: Pool) -> None:
    """Refuses a launch in a pool whose budget is spent.

    Raises:
        Conflict: it is.
    """
    if why := await find_fuse(session, pool):
        raise Conflict(why, code="budget_spent")
