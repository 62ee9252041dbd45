"""Two servers with one Postgres against one: the same claims and heartbeats, shared out between them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from backend.db.embedded import EmbeddedPostgres
from lablink_ui.bench.claims import check_no_double, claim
from lablink_ui.bench.conditions import Cores, Sizes, pinned_to
from lablink_ui.bench.figures import PER_S, Figure, Report
from lablink_ui.bench.heartbeats import for_a_while
from lablink_ui.bench.loadgen import Load, drive, drive_all
from lablink_ui.bench.machines import join
from lablink_ui.bench.server import BenchServer, free_port, fresh, running

PATH = "two processes"
_LIMIT_IS = "one process"


async def measure(sizes: Sizes, cores: Cores) -> Report:
    """Two servers, then one. Each has a core of its own, and so have Postgres and the load: else nothing is measured.

    Raises:
        BenchFailed: a claim was refused, a machine given twice, a heartbeat refused.
    """
    needed = sizes.cores_for_two
    if len(cores.all) < needed:
        return Report([], [f"{PATH}: not measured; two servers, Postgres and the load need {needed} cores."])
    plan = _share_out(cores)
    with pinned_to(plan.load):
        two, one = [await _measure(count, sizes, plan) for count in (2, 1)]
    return Report(
        [
            Figure(
                PATH, f"claims, {sizes.claims_at_once} at once", PER_S, two.claims.per_s, one.claims.per_s, _LIMIT_IS
            ),
            Figure(
                PATH,
                f"heartbeats, {sizes.beat_connections} connections",
                PER_S,
                two.beats.per_s,
                one.beats.per_s,
                _LIMIT_IS,
            ),
        ],
        [
            f"{PATH}: 2 is the ceiling; connections are shared out evenly, without a balancer between.",
            *two.claims.note_if_busy(f"{PATH}, claims"),
            *two.beats.note_if_busy(f"{PATH}, heartbeats"),
        ],
    )


@dataclass(frozen=True, slots=True)
class _Plan:
    """Who runs on which cores."""

    servers: Sequence[frozenset[int]]
    postgres: frozenset[int]
    load: frozenset[int]


@dataclass(frozen=True, slots=True)
class _Found:
    claims: Load
    beats: Load


def _share_out(cores: Cores) -> _Plan:
    """Of the load's cores one is for the second server and one for Postgres, where it has more than these."""
    match sorted(cores.load):
        case [second, postgres, *load] if load:
            return _Plan([cores.server, frozenset({second})], frozenset({postgres}), frozenset(load))
    return _Plan([cores.server, cores.server], cores.server, cores.load)


async def _measure(count: int, sizes: Sizes, plan: _Plan) -> _Found:
    async with _serve(count, plan, sizes.machines) as servers:
        machines = await join(servers[0], sizes.machines)
        ports = [server.port for server in servers]
        beats = [machine.beat() for machine in machines]
        # From here on each server knows every token.
        for port in ports:
            (await drive(port, beats, at_once=sizes.beat_connections)).check(200)
        claims = await drive_all(ports, map(claim, range(sizes.machines)), at_once=sizes.claims_at_once)
        await check_no_double(claims, servers[0].database_url)
        told = await drive_all(ports, for_a_while(beats, sizes.beat_s), at_once=sizes.beat_connections)
        told.check(200)
        return _Found(claims, told)


@asynccontextmanager
async def _serve(count: int, plan: _Plan, machines: int) -> AsyncIterator[list[BenchServer]]:
    """So many fresh servers that share a data directory and a Postgres."""
    with tempfile.TemporaryDirectory(prefix="lablink-bench-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        home = directory / "home"
        home.mkdir(mode=0o700)
        postgres = EmbeddedPostgres(home)
        server = fresh(home)
        database = {"LABLINK_DATABASE_URL": await postgres.start()}
        try:
            _pin_postgres(server, plan.postgres)
            async with AsyncExitStack() as stack:
                servers = []
                # One after the other: the first makes the schema.
                for number in range(count):
                    one, place = replace(server, port=free_port()), directory / f"server{number}"
                    place.mkdir()
                    start = running(
                        one.command(f"pool.default.max={machines}"),
                        one.port,
                        "/readyz",
                        cores=plan.servers[number],
                        directory=place,
                        environment={**one.environment(lags=place / "lags"), **database},
                    )
                    servers.append(replace(one, pid=await stack.enter_async_context(start)))
                yield servers
        finally:
            await postgres.stop()


def _pin_postgres(server: BenchServer, cores: frozenset[int]) -> None:
    """Its later processes come from the first one."""
    postmaster = psutil.Process(int((server.home / "postgres" / "postmaster.pid").read_text().split()[0]))
    for process in (postmaster, *postmaster.children()):
        if cores:
            os.sched_setaffinity(process.pid, cores)
