"""Several processes with one database: one leads, and another one as soon as it does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from backend.db import presence as module
from backend.db.presence import Presence
from tests.harness.waiting import until

KIND = 4_711


@pytest.fixture(autouse=True)
def fast(monkeypatch) -> None:
    monkeypatch.setattr(module, "BEAT_S", 0.02)


@asynccontextmanager
async def present(url: str, *words: str, may_lead: bool = True) -> AsyncIterator[Presence]:
    """A process among the others."""
    presence = Presence(url, {KIND: words}, may_lead=may_lead)
    running = asyncio.create_task(presence.run())
    try:
        await presence.until_known()
        yield presence
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def work_of(presence: Presence, said: list[str]) -> Callable[[], object]:
    async def work() -> None:
        said.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            said.append("broken off")

    return presence.leading(work)


async def test_one_leads_and_when_it_ends_the_other_does(database_url: str) -> None:
    said: list[str] = []
    async with AsyncExitStack() as first, present(database_url, may_lead=False):
        one = await first.enter_async_context(present(database_url))
        await until(lambda: one.leads, every_s=0.01)
        async with present(database_url) as two:
            working = [asyncio.create_task(work_of(each, said)()) for each in (one, two)]
            await until(lambda: said == ["begun"], every_s=0.01)
            await first.aclose()
            await until(lambda: said == ["begun", "broken off", "begun"], every_s=0.01)
            assert (one.leads, two.leads) == (False, True)
            for task in working:
                task.cancel()
            await asyncio.gather(*working, return_exceptions=True)


async def test_a_process_that_hangs_does_not_lead_for_long(database_url: str, monkeypatch) -> None:
    monkeypatch.setattr(module, "SILENT_S", 1)
    async with present(database_url) as one:
        await until(lambda: one.leads, every_s=0.01)
        # Its next beat is far away.
        monkeypatch.setattr(module, "BEAT_S", 60)
        await asyncio.sleep(0.1)
        monkeypatch.setattr(module, "BEAT_S", 0.02)
        async with present(database_url) as two:
            await until(lambda: two.leads, every_s=0.02)


async def test_the_marks_of_others_are_seen_and_end_with_them(database_url: str) -> None:
    async with present(database_url, "mine") as one:
        assert await one.list_others() == []
        async with present(database_url, "theirs", "both") as two, present(database_url, "mine"):
            assert {frozenset(other[KIND]) for other in await one.list_others()} == {two.marks[KIND], one.marks[KIND]}
            assert len(await one.list_others()) == 2
        assert await until(lambda: ends(one))


async def ends(presence: Presence) -> bool:
    return await presence.list_others() == []
