"""Pauses in long work: one event loop serves everybody, so nothing may hold it for long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

# Items between two pauses: at some 50 µs each, nobody waits for more than a few milliseconds.
AT_ONCE = 50
Item = TypeVar("Item")


async def with_pauses(items: Iterable[Item], *, at_once: int = AT_ONCE) -> AsyncIterator[Item]:
    """The same items; after so many of them, everything else that is ready runs first."""
    for number, item in enumerate(items, 1):
        yield item
        if number % at_once == 0:
            await asyncio.sleep(0)
