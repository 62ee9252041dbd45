"""What many pages want at once is read once, and never older than the asking."""

from __future__ import annotations

import asyncio

import pytest

from backend.live.shared import SharedReadings


class Book:
    """Something that is read, one reading at a time, each until it is let go."""

    def __init__(self) -> None:
        self.began, self.turns = 0, asyncio.Semaphore(0)

    async def read(self) -> int:
        self.began += 1
        mine = self.began
        await self.turns.acquire()
        if mine == 13:
            raise ValueError("unlucky")
        return mine


async def test_all_who_ask_before_a_reading_begins_share_it_and_later_ones_share_the_next() -> None:
    book, shared = Book(), SharedReadings()
    early = [asyncio.create_task(shared.get("events", book.read)) for _ in range(5)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert book.began == 1
    late = [asyncio.create_task(shared.get("events", book.read)) for _ in range(5)]
    other = asyncio.create_task(shared.get("costs", book.read))
    book.turns.release()
    assert await asyncio.gather(*early) == [1] * 5
    for _ in range(2):
        book.turns.release()
    assert set(await asyncio.gather(*late)) <= {2, 3}
    assert len(set(await asyncio.gather(*late))) == 1
    assert await other in {2, 3}
    assert book.began == 3


async def test_a_page_that_is_closed_takes_nothing_from_the_others() -> None:
    book, shared = Book(), SharedReadings()
    closed, open_ = (asyncio.create_task(shared.get("events", book.read)) for _ in range(2))
    await asyncio.sleep(0)
    closed.cancel()
    book.turns.release()
    assert await open_ == 1


async def test_what_fails_fails_for_those_who_waited_and_for_nobody_after_them() -> None:
    book, shared = Book(), SharedReadings()
    book.began = 12
    book.turns.release()
    with pytest.raises(ValueError, match="unlucky"):
        await shared.get("events", book.read)
    book.turns.release()
    assert await shared.get("events", book.read) == 14
