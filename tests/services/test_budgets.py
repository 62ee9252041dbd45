"""Budgets: warnings at 50, 80 and 100 %, and a fuse that only an admin lifts."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text

from backend.db.engine import Database
from backend.errors import Conflict, Forbidden, InvalidInput, NotFound
from backend.services.actor import Actor
from backend.services.budgets import lift_fuse, list_budgets, remove_budget, set_budget, watch_budgets
from backend.services.costs import preview_launch
from backend.services.events import list_events
from backend.services.operations import list_operations, request_launch
from backend.services.pools import PoolSpec, ensure_pool
from backend.services.refills import refill_pools
from backend.states import Role
from tests.services.worlds import ADMIN


async def spending(db: Database, *, dollars: float = 10, available_min: int = 0) -> None:
    """A pool of two machines at a dollar an hour each, with a budget."""
    spec = PoolSpec(price_per_hour=1.0, available_min=available_min, max=20)
    await ensure_pool(db, "lab", spec, actor=ADMIN)
    await set_budget(db, "lab", dollars, actor=ADMIN)
    await request_launch(db, "lab", 2, actor=ADMIN)


async def told(db: Database) -> list[str]:
    return [event.message for event in reversed(await list_events(db)) if event.actor == "rule:budget"]


async def test_half_four_fifths_and_all_of_a_budget_are_told_once_each(db: Database, clock) -> None:
    await spending(db)
    for _ in range(60):
        clock.advance(360)
        await asyncio.gather(*(watch_budgets(db) for _ in range(3)))
    said = await told(db)
    assert [each.split(" %")[0] for each in said] == ["50", "80", "100"]
    assert said[0] == "50 % of the budget of pool lab is spent: $5.00 of $10.00"
    assert "until an admin lifts the fuse" in said[2]


async def test_of_warnings_that_fall_due_together_the_highest_is_told(db: Database, clock) -> None:
    await spending(db)
    clock.advance(9 * 3_600)
    assert await watch_budgets(db) == 1
    assert [each.split(" %")[0] for each in await told(db)] == ["100"]


async def test_a_spent_budget_refuses_launches_and_refills_and_says_so(db: Database, clock) -> None:
    await spending(db, available_min=5)
    assert await refill_pools(db)
    clock.advance(5 * 3_600 + 30)
    assert await watch_budgets(db) == 1
    before = len(await list_operations(db))
    with pytest.raises(Conflict, match=r"budget of pool 'lab' \(\$10.00\) is spent") as refused:
        await request_launch(db, "lab", 1, actor=ADMIN)
    assert refused.value.error_code == "budget_spent"
    assert "is spent" in str((await preview_launch(db, "lab", 1)).problem)
    async with db.transaction() as session:
        await session.execute(text("UPDATE vms SET status = 'failed'"))
    assert await refill_pools(db) == []
    assert len(await list_operations(db)) == before
    await lift_fuse(db, "lab", actor=ADMIN)
    assert len(await refill_pools(db)) == 1


async def test_the_fuse_opens_at_the_first_look_after_the_budgets_end_and_not_before(db: Database, clock) -> None:
    await spending(db)
    clock.advance(5 * 3_600 - 30)
    await watch_budgets(db)
    await request_launch(db, "lab", 1, actor=ADMIN)
    clock.advance(60)
    await watch_budgets(db)
    with pytest.raises(Conflict):
        await request_launch(db, "lab", 1, actor=ADMIN)


async def test_only_an_admin_lifts_the_fuse_and_a_new_budget_sets_it_again(db: Database, clock) -> None:
    await spending(db)
    with pytest.raises(Conflict, match="not spent"):
        await lift_fuse(db, "lab", actor=ADMIN)
    clock.advance(6 * 3_600)
    await watch_budgets(db)
    with pytest.raises(Forbidden):
        await lift_fuse(db, "lab", actor=Actor.admin("oli", role=Role.OPERATOR))
    assert (await lift_fuse(db, "lab", actor=ADMIN)).is_lifted
    await request_launch(db, "lab", 1, actor=ADMIN)
    # One below what is spent holds at once, one above it does not.
    assert (await set_budget(db, "lab", 11, actor=ADMIN)).is_fused
    assert not (await set_budget(db, "lab", 50, actor=ADMIN)).is_fused
    await request_launch(db, "lab", 1, actor=ADMIN)
    (budget,) = await list_budgets(db)
    assert budget.spent == pytest.approx(12, abs=0.01)


async def test_a_budget_can_begin_anew_and_be_taken_away(db: Database, clock) -> None:
    await spending(db)
    clock.advance(6 * 3_600)
    anew = await set_budget(db, "lab", 10, is_from_now=True, actor=ADMIN)
    assert (anew.spent, anew.is_fused) == (pytest.approx(0, abs=0.01), False)
    await remove_budget(db, "lab", actor=ADMIN)
    assert await list_budgets(db) == []
    with pytest.raises(NotFound):
        await remove_budget(db, "lab", actor=ADMIN)


@pytest.mark.parametrize("dollars", [0, -1, 0.001, 1e9, float("nan"), float("inf")])
async def test_a_budget_is_a_sum_of_money(db: Database, dollars: float) -> None:
    await ensure_pool(db, "lab", PoolSpec(), actor=ADMIN)
    with pytest.raises(InvalidInput):
        await set_budget(db, "lab", dollars, actor=ADMIN)
