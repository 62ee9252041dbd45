"""The evening before a class, with real agents: the command names the machine that does not work, and then says GO."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from backend.services.actor import Actor
from backend.services.pools import get_pool, list_pools, spec_of, update_pool
from tests.harness.pools import database_of, make_pool
from tests.harness.server import API_TOKEN, LABLINK, Server

pytestmark = pytest.mark.patient


async def rehearse(server: Server, pool: str, *options: str) -> tuple[int, str]:
    """`lablink rehearse`; returns its exit status and what it said."""
    starts = (datetime.now(UTC) + timedelta(hours=12)).isoformat()
    process = await asyncio.create_subprocess_exec(
        LABLINK, "rehearse", pool, "--people", "2", "--starts", starts, "--server", server.url, *options,
        env={"PATH": os.environ["PATH"], "LABLINK_API_TOKEN": API_TOKEN},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said = (await process.communicate())[0].decode()
    assert process.returncode is not None
    return process.returncode, said


async def set_check(server: Server, pool: str, command: str) -> None:
    async with database_of(server) as db:
        spec = replace(spec_of(await get_pool(db, pool)), check_command=command)
        await update_pool(db, pool, spec, actor=Actor.admin("test"))


async def test_a_rehearsal_names_the_machine_whose_check_fails_and_says_go_once_it_is_mended(
    shared_server: Server,
) -> None:
    # As whoever sits there: in the session's home, at a machine of this name.
    check = 'echo at $HOSTNAME; test "$PWD" = "$HOME" && test $HOSTNAME = dress-001'
    await make_pool(shared_server, "dress", max=2, terminal=True, check_command=check)
    _, hostnames = await shared_server.launch(2, "dress")
    await shared_server.until_status(hostnames, "available")
    status, said = await rehearse(shared_server, "dress", "--no-arrivals")
    assert status == 1, said
    assert "dress-001: passed (terminal)" in said
    assert "! dress-002: the check command ended with exit status 1." in said
    assert "dress-001: the check" not in said
    await set_check(shared_server, "dress", check.partition(" && ")[0])
    status, said = await rehearse(shared_server, "dress", "--over", "0.05")
    assert (status, "\nGO\n" in said) == (0, True), said
    assert "arrivals: 2 people within 3 s, 2 machines" in said
    assert "arrivals: 2 seated, 0 in line, 0 errors" in said
    async with database_of(shared_server) as db:
        assert not [pool for pool in await list_pools(db) if pool.is_rehearsal]
    vms = await shared_server.list_vms()
    assert not [name for name in vms if name.startswith("swarm-")]
    assert {(vms[name]["status"], vms[name]["email"]) for name in hostnames} == {("available", None)}
