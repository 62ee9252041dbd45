"""Batches: whoever comes while one statement is under way shares the next one, so that a crowd costs few statements."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import psycopg

from backend.db.express import Connection
from backend.errors import Unavailable
from backend.pauses import with_pauses

# More in one statement save nothing, and hold their locks for longer.
MOST = 64
# Each wakes somebody who goes on for half a millisecond; all of them in one go would hold up everybody else.
ANSWERS_AT_ONCE = 8
Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")
Result = TypeVar("Result")
# Makes one result of each item, in one statement that is a transaction by itself.
Work = Callable[[Connection, Key, list[Item]], Awaitable[list[Result]]]
_Waiting = tuple[Any, asyncio.Future[Any]]


class Batches:
    """Items with the same work and key go together, in their order, one batch after another; each has its own answer.

    Nobody waits for company: the first goes at once, and whoever comes meanwhile goes next.
    """

    def __init__(self, connect: Callable[[], AbstractAsyncContextManager[Connection]]) -> None:
        self._connect = connect
        self._waiting: dict[Hashable, list[_Waiting]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def add(self, work: Work[Key, Item, Result], key: Key, item: Item) -> Result:
        """What ``work`` makes of ``item``; raises what it raises."""
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.get((work, key))
        if waiting is not None:
            waiting.append((item, answer))
            return await answer
        self._waiting[work, key] = [(item, answer)]
        # A task of its own: whoever came first may leave, the others stay.
        task = asyncio.create_task(self._run(work, key))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await answer

    async def close(self) -> None:
        """Breaks off what is under way."""
        for task in (tasks := tuple(self._tasks)):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, work: Work[Any, Any, Any], key: Hashable) -> None:
        waiting = self._waiting[work, key]
        batch: list[_Waiting] = []
        try:
            while waiting:
                batch, waiting[:MOST] = waiting[:MOST], []
                await self._do(work, key, batch)
        finally:
            del self._waiting[work, key]
            _settle([*batch, *waiting], Unavailable("The server is stopping. Try again in a moment.", retry_after_s=2))

    async def _do(self, work: Work[Any, Any, Any], key: Hashable, batch: list[_Waiting]) -> None:
        try:
            async with self._connect() as connection:
                results = await work(connection, key, [item for item, _ in batch])
        except Exception as exc:
            if len(batch) == 1 or not _is_undone(exc):
                _settle(batch, exc)
                return
            # What is wrong with one of them must not be told to the others.
            for each in batch:
                await self._do(work, key, [each])
            return
        answers = (answer for _, answer in batch)
        async for answer, result in with_pauses(zip(answers, results, strict=True), at_once=ANSWERS_AT_ONCE):
            if not answer.done():
                answer.set_result(result)


def _is_undone(exc: Exception) -> bool:
    """Whether Postgres itself has said that nothing was kept; after a lost connection nobody knows."""
    return not isinstance(exc, Unavailable) or isinstance(exc.__cause__, psycopg.errors.DeadlockDetected)


def _settle(batch: list[_Waiting], exc: Exception) -> None:
    for _, answer in batch:
        if not answer.done():
            answer.set_exception(exc)
