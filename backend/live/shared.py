"""Readings that many pages want at the same moment: one is made for all of them, and no two of a kind at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class SharedReadings:
    """What is asked for while a reading runs may be newer than it: all who ask then share the next one."""

    def __init__(self) -> None:
        self._next: dict[Hashable, asyncio.Task[Any]] = {}
        self._running: dict[Hashable, asyncio.Task[Any]] = {}

    async def get(self, key: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        """What ``read`` returns; it begins after this call, for everybody who asks for ``key`` until it does.

        Raises:
            Whatever ``read`` raises, for everybody who waits for it.
        """
        waiting: asyncio.Task[T] | None = self._next.get(key)
        if waiting is None:
            waiting = self._next[key] = asyncio.create_task(self._run(key, read, self._running.get(key)))
        # A page that is closed meanwhile takes nothing from the others.
        return await asyncio.shield(waiting)

    async def _run(self, key: Hashable, read: Callable[[], Awaitable[T]], former: asyncio.Task[Any] | None) -> T:
        if former is not None:
            await asyncio.wait({former})
        mine = self._running[key] = self._next.pop(key)
        try:
            return await read()
        finally:
            if self._running.get(key) is mine:
                del self._running[key]
