"""Workshops: a pool of its own for a test, with machines whose agents do what they are told."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.harness.agents import HandAgent, join
from tests.harness.pools import make_pool
from tests.harness.server import Server

_names = (f"hall{n}" for n in itertools.count())


@asynccontextmanager
async def workshop(server: Server, machines: int, **figures: object) -> AsyncIterator[tuple[str, list[HandAgent]]]:
    """A pool with machines whose agents do what they are told."""
    pool = await make_pool(server, next(_names), **figures)
    async with server.client() as client:
        agents = await join(server, client, machines, prefix=pool, pool=pool) if machines else []

        async def obey(agent: HandAgent) -> None:
            while True:
                await agent.obey(wait=20)

        tasks = [asyncio.create_task(obey(agent)) for agent in agents]
        try:
            yield pool, agents
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
