"""One real agent: its start, its memory, and what it costs at rest; against a process that only imports the same."""

from __future__ import annotations

import asyncio
import subprocess
import time
from datetime import datetime

import psutil

from lablink_ui.bench.conditions import Cores, Sizes
from lablink_ui.bench.figures import MB, PCT, BenchFailed, Figure, Report, S
from lablink_ui.bench.machines import POOL
from lablink_ui.bench.server import LOOK_S, PYTHON, BenchServer, measure_idle_mb, running_agent, serve

HOSTNAME = "bench-agent"
AVAILABLE_S = 30.0
STARTS = 3
_SAME = "requests, psutil, pynvml, websockets.sync.client"
_LIMIT_IS = "a process that only imports the same packages"


async def measure(sizes: Sizes, cores: Cores) -> Report:
    """Starts an agent beside the load, and lets it rest for a while.

    Raises:
        BenchFailed: it did not become available.
    """
    async with serve(cores.server) as server:
        (token,) = (await server.ask("POST", "/api/admin/enrolments", {"pool": POOL, "count": 1}))["tokens"]
        began = time.time()
        async with running_agent(server, HOSTNAME, token, cores=cores.load) as pid:
            started_s = await _until_available(server) - began
            process = psutil.Process(pid)
            before = sum(process.cpu_times()[:2])
            await asyncio.sleep(sizes.rest_s)
            rest_pct = 100 * (sum(process.cpu_times()[:2]) - before) / sizes.rest_s
            memory_mb = process.memory_info().rss / 1e6
    imported_s = min(_time_import() for _ in range(STARTS))
    return Report(
        [
            Figure("agent", "from its start to available", S, started_s, imported_s, _LIMIT_IS),
            Figure("agent", "memory", MB, memory_mb, measure_idle_mb(_SAME), _LIMIT_IS),
            Figure("agent", "of a core, at rest", PCT, rest_pct, None, ""),
        ]
    )


async def _until_available(server: BenchServer) -> float:
    """When (seconds since 1970) the server had its first healthy heartbeat."""
    end = time.monotonic() + AVAILABLE_S
    while time.monotonic() < end:
        (vm,) = (await server.ask("GET", "/api/admin/instances"))["instances"] or ({"status": ""},)
        if vm["status"] == "available":
            return datetime.fromisoformat(vm["status_changed_at"]).timestamp()
        await asyncio.sleep(LOOK_S)
    raise BenchFailed(f"the agent was not available within {AVAILABLE_S:.0f} s")


def _time_import() -> float:
    began = time.perf_counter()
    subprocess.run([PYTHON, "-c", f"import {_SAME}"], check=True)
    return time.perf_counter() - began
