"""A pool that shall hold free machines gets them by itself."""

from __future__ import annotations

import asyncio

from backend.db.engine import Database
from backend.services.claims import request_claim
from backend.services.operations import get_operation, list_operations, request_cancel
from backend.services.pools import PoolSpec, ensure_pool, set_pool_open
from backend.services.refills import refill_pools
from tests.services.worlds import ADMIN, make_machines


async def test_what_is_missing_to_the_minimum_is_launched_once(db: Database) -> None:
    await ensure_pool(db, "warm", PoolSpec(available_min=3, max=10), actor=ADMIN)
    await ensure_pool(db, "cold", PoolSpec(), actor=ADMIN)
    queued = await asyncio.gather(*(refill_pools(db) for _ in range(8)))
    (operation_id,) = [each for ids in queued for each in ids]
    operation = await get_operation(db, operation_id)
    assert operation.hostnames == ("warm-001", "warm-002", "warm-003")
    assert operation.requested_by == "rule:refill"


async def test_a_claim_makes_room_for_the_next_and_the_ceiling_holds(db: Database) -> None:
    await ensure_pool(db, "lab", PoolSpec(available_min=2, max=3), actor=ADMIN)
    await make_machines(db, 2)
    assert await refill_pools(db) == []
    await request_claim(db, "lab", "ada@lab.org", owner_hash=b"1")
    await request_claim(db, "lab", "bob@lab.org", owner_hash=b"2")
    (operation_id,) = await refill_pools(db)
    # Two are wanted, one still fits.
    assert (await get_operation(db, operation_id)).hostnames == ("lab-001",)
    assert await refill_pools(db) == []


async def test_a_failed_refill_is_tried_again_later_and_later(db: Database, clock) -> None:
    await ensure_pool(db, "warm", PoolSpec(available_min=1, max=100), actor=ADMIN)
    pauses = []
    for _ in range(4):
        (operation_id,) = await refill_pools(db)
        await request_cancel(db, operation_id, actor=ADMIN)
        waited = 0
        while not await refill_pools(db):
            clock.advance(10)
            waited += 10
        pauses.append(waited)
        await request_cancel(db, (await list_operations(db, limit=1))[0].id, actor=ADMIN)
        clock.advance(4_000)
    assert pauses == sorted(pauses)
    assert pauses[0] >= 30
    assert pauses[-1] > pauses[0]


async def test_a_closed_pool_is_not_refilled(db: Database) -> None:
    await ensure_pool(db, "warm", PoolSpec(available_min=1), actor=ADMIN)
    await set_pool_open(db, "warm", is_open=False, actor=ADMIN)
    assert await refill_pools(db) == []
