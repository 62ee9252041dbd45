"""Heartbeats over HTTP, against a bare JSON route of the same framework that is sent the very same bytes."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import cycle
from pathlib import Path

import psycopg

from backend.db.engine import Database
from backend.services.actor import Actor
from backend.services.pools import PoolSpec, ensure_pool
from lablink_ui.bench.conditions import Cores, Sizes
from lablink_ui.bench.figures import MS, PER_S, BenchFailed, Figure, Report
from lablink_ui.bench.loadgen import Load, drive
from lablink_ui.bench.machines import join
from lablink_ui.bench.server import LOOK_S, BenchServer, free_port, running, serve

PATH = "heartbeat"
STORED_WITHIN_S = 5.0
MOST_A_POOL = 1_000
_LIMIT_IS = "a bare FastAPI route that is sent the same bytes"


async def measure(sizes: Sizes, cores: Cores) -> Report:
    """Plain heartbeats over few connections, of few machines and of many, in turns with the bare route.

    Raises:
        BenchFailed: a heartbeat was refused or not stored.
    """
    bare = Load()
    async with serve(cores.server, f"pool.default.max={sizes.few_machines}") as server, _serve_bare(cores) as bare_port:
        beats = [machine.beat() for machine in await join(server, sizes.few_machines)]
        few, few_lag = await _drive(server, beats, bare_port, bare, sizes)
        beats += await _join_more(server, sizes.crowd - len(beats))
        crowd, crowd_lag = await _drive(server, beats, bare_port, bare, sizes)
    name = f"{sizes.crowd} machines"
    return Report(
        [
            Figure(PATH, f"{sizes.beat_connections} connections, {name}", PER_S, crowd.per_s, bare.per_s, _LIMIT_IS),
            *(
                Figure(PATH, f"p{percent}", MS, crowd.percentile_ms(percent), bare.percentile_ms(percent), _LIMIT_IS)
                for percent in (50, 99)
            ),
            crowd_lag,
            Figure(
                PATH, f"{name}, beside few", PER_S, crowd.per_s, few.per_s, f"ours with {sizes.few_machines} machines"
            ),
            few_lag,
        ],
        [*crowd.note_if_busy("heartbeat"), *bare.note_if_busy("heartbeat, the limit")],
    )


async def _drive(
    server: BenchServer, beats: Sequence[bytes], bare_port: int, bare: Load, sizes: Sizes
) -> tuple[Load, Figure]:
    """Ours and the bare route in turns; and how late our loop was meanwhile."""
    # Once each: from here on the server knows every token, as it does in the middle of a day.
    (await drive(server.port, beats, at_once=sizes.beat_connections)).check(200)
    ours, began_at = Load(), time.monotonic()
    for _ in range(sizes.beat_rounds):
        for port, load in ((bare_port, bare), (server.port, ours)):
            load.add(await drive(port, for_a_while(beats, sizes.beat_s), at_once=sizes.beat_connections))
    lag = server.lag(PATH, since=began_at, what=f"{len(beats)} machines, event loop late by, p99")
    began = time.time()
    last = await drive(server.port, beats, at_once=sizes.beat_connections)
    for load in (ours, bare, last):
        load.check(200)
    await _until_stored(server.database_url, began, len(beats))
    return ours, lag


async def _join_more(server: BenchServer, count: int) -> list[bytes]:
    """The heartbeats of so many machines, in as many pools as they need."""
    beats: list[bytes] = []
    db = Database(server.database_url)
    try:
        for number, size in enumerate(_split(count)):
            await ensure_pool(db, f"crowd-{number}", PoolSpec(max=MOST_A_POOL), actor=Actor.rule("bench"))
            joined = await join(server, size, pool=f"crowd-{number}", prefix=f"crowd{number}")
            beats += [machine.beat() for machine in joined]
    finally:
        await db.close()
    return beats


def _split(count: int) -> list[int]:
    """So many machines for each of the pools that hold them."""
    return [min(MOST_A_POOL, count - first) for first in range(0, count, MOST_A_POOL)]


def for_a_while(beats: Sequence[bytes], seconds: float) -> Iterator[bytes]:
    """The machines in turn, until the time is over."""
    end = time.monotonic() + seconds
    for beat in cycle(beats):
        if time.monotonic() > end:
            return
        yield beat


@asynccontextmanager
async def _serve_bare(cores: Cores) -> AsyncIterator[int]:
    port = free_port()
    command = [sys.executable, "-m", "lablink_ui.bench.bare_route", str(port)]
    with tempfile.TemporaryDirectory(prefix="lablink-bench-") as directory:
        async with running(command, port, "/healthz", cores=cores.server, directory=Path(directory)):
            yield port


async def _until_stored(database_url: str, since: float, machines: int) -> None:
    """Heartbeats are answered before they are written together; each machine's last one must get there."""
    query = "SELECT count(*) FROM latest_heartbeats WHERE at >= to_timestamp(%s)"
    end, stored = time.monotonic() + STORED_WITHIN_S, None
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        while time.monotonic() < end:
            stored = await (await connection.execute(query, (since,))).fetchone()
            if stored == (machines,):
                return
            await asyncio.sleep(LOOK_S)
    raise BenchFailed(f"of {machines} machines' last heartbeats, {stored} were stored within {STORED_WITHIN_S:.0f} s")
