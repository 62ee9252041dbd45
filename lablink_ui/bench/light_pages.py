"""Open pages without a browser, as `lablink swarm` has them; hundreds in one process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from lablink_ui.bench.figures import BenchFailed
from lablink_ui.swarm.http import Client, Failed
from lablink_ui.swarm.page import Page
from lablink_ui.swarm.target import Target, find_target

AT_ONCE, OPEN_S = 8, 30.0


@asynccontextmanager
async def open_pages(url: str, path: str, count: int) -> AsyncIterator[None]:
    """So many pages of different people, open within the block.

    Raises:
        BenchFailed: one did not open, or lost its connection meanwhile.
    """
    problems: list[Failed] = []
    target, turns = find_target(url), asyncio.Semaphore(AT_ONCE)
    async with AsyncExitStack() as stack:
        try:
            await asyncio.gather(*(_open(stack, turns, target, path, problems) for _ in range(count)))
        except Failed as exc:
            raise BenchFailed(f"{path} did not open: {exc}") from exc
        yield
        if problems:
            raise BenchFailed(f"{len(problems)} times an open page lost its server: {problems[0]}")


async def _open(
    stack: AsyncExitStack, turns: asyncio.Semaphore, target: Target, path: str, problems: list[Failed]
) -> None:
    async with turns:
        client = Client(target)
        stack.callback(client.close)
        page = Page(client, on_problem=problems.append)
        stack.push_async_callback(page.close)
        await page.open(path)
        await page.until(lambda: page.is_connected, within_s=OPEN_S, what="a connection")
