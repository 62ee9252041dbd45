"""Background tasks: one that fails is started again, shown while it fails, and talked about once."""

from __future__ import annotations

import asyncio
import logging

import pytest

from backend.errors import Unavailable
from backend.tasks.supervisor import Supervisor
from tests.harness.waiting import until


async def test_a_task_is_started_again_and_a_failure_that_repeats_itself_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    supervisor, tries, is_away = Supervisor(), [], True

    async def work() -> None:
        tries.append(1)
        if is_away:
            raise Unavailable("the database is away")

    with caplog.at_level(logging.ERROR):
        supervisor.start_every("sweep", 0.01, work)
        state = supervisor.states["sweep"]
        await until(lambda: len(tries) >= 3)
        assert state.last_error == "Unavailable: the database is away"
        assert [record.message for record in caplog.records] == [f"task sweep failed: {state.last_error}"]
        is_away = False
        await until(lambda: state.last_error is None, within_s=5)
    await supervisor.stop()


async def test_stopping_ends_every_task(caplog: pytest.LogCaptureFixture) -> None:
    supervisor, ended = Supervisor(), []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(1)

    supervisor.start("one", work)
    supervisor.start("two", work)
    await asyncio.sleep(0)
    await supervisor.stop()
    assert len(ended) == 2
