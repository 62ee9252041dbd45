"""The heartbeat buffer: what it remembers of machines, and for how long."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from backend.db.engine import Database
from backend.live import heartbeat_buffer
from backend.live.heartbeat_buffer import HeartbeatBuffer
from backend.services.vms import get_vm
from tests.services.worlds import make_machines


@pytest.mark.parametrize(("kept_s", "is_awaited"), [(heartbeat_buffer.KEPT_S, False), (0.0, True)])
async def test_a_repeat_waits_for_company_unless_its_machine_was_silent_for_so_long_that_it_is_forgotten(
    db: Database, monkeypatch: pytest.MonkeyPatch, kept_s: float, is_awaited: bool
) -> None:
    monkeypatch.setattr(heartbeat_buffer, "KEPT_S", kept_s)
    # What nobody awaits is not written before the test is over.
    monkeypatch.setattr(heartbeat_buffer, "REPEATS_S", 3_600.0)
    machine, other = await make_machines(db, 2)
    buffer = HeartbeatBuffer(db)
    running = asyncio.create_task(buffer.run())
    try:
        await buffer.add(machine)
        await buffer.add(other)
        await buffer.add(replace(machine, at=db.now(), cpu_pct=55.0))
        assert (await get_vm(db, "lab-m0")).cpu_pct == (55.0 if is_awaited else 1.0)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
