"""Waiting for facts: never for time."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

# Asking costs those who are asked as well: what is long in coming is asked for at a tenth of the time waited for it.
OFTEN_S, SELDOM_S, SHARE = 0.05, 0.3, 0.1


async def until(
    fact: Callable[[], T | Awaitable[T]],
    *,
    within_s: float = 20,
    every_s: float | None = None,
    what: str | Callable[[], str] = "",
) -> T:
    """Returns what ``fact`` returns once it is truthy; an exception in it counts as "not yet".

    ``every_s``: how often to look, where a moment must not be missed. ``what``: what was waited for; a function, where
    it tells how things stand at the end.

    Raises:
        AssertionError: it was not within the deadline; says what was last seen.
    """
    began, last = time.monotonic(), None
    while (waited := time.monotonic() - began) < within_s:
        try:
            last = fact()
            if inspect.isawaitable(last):
                last = await last
            if last:
                return last
        except Exception as exc:
            last = exc
        await asyncio.sleep(every_s or min(max(OFTEN_S, SHARE * waited), SELDOM_S))
    wanted = what() if callable(what) else what or fact
    raise AssertionError(f"not within {within_s} s: {wanted}; last seen: {last!r}")
