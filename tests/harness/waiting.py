"""Waiting for facts: never for time."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def until(
    fact: Callable[[], T | Awaitable[T]], *, within_s: float = 20, every_s: float = 0.05, what: str = ""
) -> T:
    """Returns what ``fact`` returns once it is truthy; an exception in it counts as "not yet".

    Raises:
        AssertionError: it was not within the deadline; says what was last seen.
    """
    end, last = time.monotonic() + within_s, None
    while time.monotonic() < end:
        try:
            last = fact()
            if inspect.isawaitable(last):
                last = await last
            if last:
                return last
        except Exception as exc:
            last = exc
        await asyncio.sleep(every_s)
    raise AssertionError(f"not within {within_s} s: {what or fact}; last seen: {last!r}")
