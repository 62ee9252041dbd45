"""Everybody claims at once: our whole claim over HTTP, against the bare SKIP LOCKED statement under it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import LiteralString

import psycopg

from lablink_ui.bench.conditions import Cores, Sizes
from lablink_ui.bench.figures import MS, PER_S, BenchFailed, Figure, Report
from lablink_ui.bench.loadgen import Load, drive, request, shoot
from lablink_ui.bench.machines import POOL, join
from lablink_ui.bench.server import serve

_MAKE: tuple[LiteralString, ...] = (
    "CREATE TABLE bench_seats (id int PRIMARY KEY, owner text)",
    "CREATE INDEX ON bench_seats (id) WHERE owner IS NULL",
)
_FILL = "INSERT INTO bench_seats SELECT number FROM generate_series(1, %s) AS number"
_CLAIM = """UPDATE bench_seats SET owner = %s WHERE id = (
    SELECT id FROM bench_seats WHERE owner IS NULL ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id"""
_SEATED = """SELECT count(*), count(DISTINCT vm_id), count(DISTINCT lower(email))
    FROM claims WHERE status IN ('preparing', 'active')"""


async def measure(sizes: Sizes, cores: Cores) -> Report:
    """As many people as machines, ``claims_at_once`` of them at any moment.

    Raises:
        BenchFailed: a claim was refused, a machine given twice, a person seated twice.
    """
    async with serve(cores.server, f"pool.default.max={sizes.machines}") as server:
        await join(server, sizes.machines)
        people = [claim(number) for number in range(sizes.machines)]
        began = time.monotonic()
        ours = await drive(server.port, people, at_once=sizes.claims_at_once)
        lag = server.lag("claim", since=began)
        await check_no_double(ours, server.database_url)
        raw = await _drive_raw(server.database_url, sizes)
    limit_is = f"the bare SKIP LOCKED update, {sizes.claims_at_once} connections"
    name = f"{sizes.claims_at_once} at once, {sizes.machines} machines"
    return Report(
        [
            Figure("claim", name, PER_S, ours.per_s, raw.per_s, limit_is),
            *(
                Figure("claim", f"p{percent}", MS, ours.percentile_ms(percent), raw.percentile_ms(percent), limit_is)
                for percent in (50, 99)
            ),
            lag,
        ],
        [
            f"claim: {len(ours.shots)} people, {len(ours.shots)} machines, none given twice and nobody seated twice.",
            *ours.note_if_busy("claim"),
            *raw.note_if_busy("claim, the limit"),
        ],
    )


def claim(number: int) -> bytes:
    """Somebody's claim, ready to be sent."""
    return request("POST", "/api/request_vm", {"email": f"person-{number}@bench.example", "pool": POOL})


async def check_no_double(claims: Load, database_url: str) -> None:
    """Makes sure that each has a machine of their own.

    Raises:
        BenchFailed: somebody has none, or one was given twice.
    """
    claims.check(201)
    given = {shot.json()["hostname"] for shot in claims.shots}
    people = len(claims.shots)
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        counted = await (await connection.execute(_SEATED)).fetchone()
    if len(given) != people or counted != (people, people, people):
        raise BenchFailed(
            f"{people} claims were answered with {len(given)} machines; seats, machines and people stored: {counted}"
        )


async def _drive_raw(database_url: str, sizes: Sizes) -> Load:
    """The same number of connections straight on the same Postgres, one statement a claim."""
    async with AsyncExitStack() as stack:
        connections = [
            await stack.enter_async_context(await psycopg.AsyncConnection.connect(database_url, autocommit=True))
            for _ in range(sizes.claims_at_once)
        ]
        for statement in _MAKE:
            await connections[0].execute(statement)
        await connections[0].execute(_FILL, (sizes.raw_claims,))
        return await shoot([_shooter(connection) for connection in connections], range(sizes.raw_claims))


def _shooter(connection: psycopg.AsyncConnection) -> Callable[[int], Awaitable[tuple[int, bytes]]]:
    async def take(number: int) -> tuple[int, bytes]:
        found = await (await connection.execute(_CLAIM, (f"person-{number}",), prepare=True)).fetchone()
        if found is None:
            raise BenchFailed("the bare claim found no free row")
        return 0, b""

    return take
