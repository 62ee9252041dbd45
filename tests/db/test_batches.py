from __future__ import annotations

import asyncio

import psycopg
import pytest

from backend.db.batches import MOST
from backend.db.engine import Database
from backend.db.express import Connection
from backend.errors import Unavailable


class Work:
    """Doubles numbers, in a statement; remembers its batches, and cannot divide by zero."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    async def __call__(self, connection: Connection, key: str, items: list[int]) -> list[int]:
        self.batches.append(items)
        query = b"SELECT 2 * n / abs(sign(n))::int FROM unnest(%s::int[]) WITH ORDINALITY AS t(n, i) ORDER BY i"
        return [row[0] for row in await (await connection.execute(query, (items,))).fetchall()]


async def test_whoever_comes_while_one_statement_is_under_way_shares_the_next_in_order(db: Database) -> None:
    work = Work()
    answers = await asyncio.gather(*(db.together(work, "key", number) for number in range(1, 3 * MOST)))
    assert answers == [2 * number for number in range(1, 3 * MOST)]
    assert [number for batch in work.batches for number in batch] == list(range(1, 3 * MOST))
    assert max(map(len, work.batches)) == MOST
    assert len(work.batches) <= 4


async def test_one_alone_waits_for_nobody_and_other_keys_go_their_own_way(db: Database) -> None:
    work = Work()
    assert await db.together(work, "a", 1) == 2
    assert await asyncio.gather(db.together(work, "a", 3), db.together(work, "b", 4)) == [6, 8]
    assert sorted(work.batches) == [[1], [3], [4]]


async def test_what_is_wrong_with_one_is_told_to_that_one_alone(db: Database) -> None:
    work = Work()
    answers = await asyncio.gather(*(db.together(work, "key", number) for number in (1, 0, 3)), return_exceptions=True)
    assert (answers[0], answers[2]) == (2, 6)
    assert isinstance(answers[1], psycopg.errors.DivisionByZero)


async def test_whoever_came_first_may_leave_and_the_others_stay(db: Database) -> None:
    work = Work()
    first, second = (asyncio.create_task(db.together(work, "key", number)) for number in (1, 2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == 4


async def test_of_a_connection_that_was_lost_everybody_is_told_and_nothing_is_tried_twice(db: Database) -> None:
    tried: list[list[int]] = []

    async def die(connection: Connection, key: str, items: list[int]) -> list[int]:
        tried.append(items)
        await connection.execute(b"SELECT pg_terminate_backend(pg_backend_pid())")
        return items

    answers = await asyncio.gather(*(db.together(die, "key", number) for number in (1, 2)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unavailable, Unavailable]
    assert tried == [[1, 2]]


async def test_a_batch_that_met_another_one_head_on_is_done_one_by_one(db: Database) -> None:
    tried: list[list[int]] = []

    async def meet(connection: Connection, key: str, items: list[int]) -> list[int]:
        tried.append(items)
        if len(items) > 1:
            raise psycopg.errors.DeadlockDetected
        return items

    assert await asyncio.gather(*(db.together(meet, "key", number) for number in (1, 2))) == [1, 2]
    assert tried == [[1, 2], [1], [2]]


async def test_who_still_waits_when_the_database_is_closed_is_told(db: Database) -> None:
    async def never(connection: Connection, key: str, items: list[int]) -> list[int]:
        await asyncio.sleep(3600)
        return items

    waiting = asyncio.create_task(db.together(never, "key", 1))
    await asyncio.sleep(0.01)
    await db.close()
    with pytest.raises(Unavailable):
        await waiting
