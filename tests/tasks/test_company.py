"""Processes that share a database must fit each other; one that does not refuses to start, and says why."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from backend.db.engine import Database
from backend.db.presence import Presence
from backend.errors import Conflict
from backend.keys import KeyRing, new_key
from backend.services.operations import request_launch
from backend.services.pools import PoolSpec, ensure_pool
from backend.settings import Settings, load_settings
from backend.tasks.company import HOME_MARK, check_company, make_presence
from backend.tasks.worker import make_providers
from tests.services.worlds import ADMIN


def settings_in(home: Path) -> Settings:
    home.mkdir(exist_ok=True)
    return load_settings([], environment={"LABLINK_HOME": str(home)})


@asynccontextmanager
async def process(db: Database, home: Path, *keys: str) -> AsyncIterator[Presence]:
    presence = make_presence(db.conninfo, settings_in(home), KeyRing(keys) if keys else None)
    running = asyncio.create_task(presence.run())
    await presence.until_known()
    yield presence
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def check(db: Database, presence: Presence, home: Path) -> None:
    await check_company(presence, db, make_providers(settings_in(home)))


async def test_other_keys_are_refused_and_one_in_common_is_enough(db: Database, tmp_path: Path) -> None:
    old, new, other = new_key(), new_key(), new_key()
    async with process(db, tmp_path, old):
        async with process(db, tmp_path, other) as stranger:
            with pytest.raises(Conflict, match="LABLINK_KEYS"):
                await check(db, stranger, tmp_path)
        async with process(db, tmp_path, new, old) as rotated:
            await check(db, rotated, tmp_path)
        # A worker apart signs nothing.
        async with process(db, tmp_path) as worker:
            await check(db, worker, tmp_path)


def test_processes_that_start_together_have_one_data_directory(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as processes:
        for number in range(20):
            settings = settings_in(tmp_path / f"home{number}")
            names = processes.map(lambda _, at=settings: str(make_presence("", at).marks[HOME_MARK]), range(8))
            assert len(set(names)) == 1


async def test_another_data_directory_is_refused_once_machines_are_written_down_in_one(
    db: Database, tmp_path: Path
) -> None:
    key = new_key()
    async with process(db, tmp_path / "here", key), process(db, tmp_path / "there", key) as there:
        await ensure_pool(db, "lab", PoolSpec(), actor=ADMIN)
        await check(db, there, tmp_path / "there")
        await request_launch(db, "lab", 1, actor=ADMIN)
        with pytest.raises(Conflict, match="LABLINK_HOME"):
            await check(db, there, tmp_path / "there")
        async with process(db, tmp_path / "here", key) as here:
            # Of the three it is the other one that is somewhere else.
            with pytest.raises(Conflict, match="Pool lab"):
                await check(db, here, tmp_path / "here")
