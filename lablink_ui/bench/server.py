"""A server to measure: `lablink serve` in a process and a data directory of its own, on cores of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from backend.db.embedded import EmbeddedPostgres
from backend.provisioning.local_vms import LocalVms
from backend.provisioning.process import end_leftover
from lablink_ui.bench import watched_server
from lablink_ui.bench.conditions import pinned_to
from lablink_ui.bench.figures import MB, MS, BenchFailed, Figure
from lablink_ui.bench.loadgen import ask, percentile, request

READY_S = 90.0
STOP_S = 30.0
LOOK_S = 0.05
LOG = "output.log"
OK = 200
# Whose server is measured: this one's own Python, or that of another commit (`make bench-compare`).
PYTHON = os.environ.get("BENCH_PYTHON") or sys.executable


@dataclass(frozen=True, slots=True)
class BenchServer:
    """A running server."""

    home: Path
    port: int
    password: str
    token: str
    pid: int = 0

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def database_url(self) -> str:
        """Its embedded Postgres, as Postgres itself wrote down where it listens."""
        lines = (self.home / "postgres" / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        return f"postgresql://postgres@/postgres?host={lines[4].strip()}"

    @property
    def memory_mb(self) -> float:
        """Resident memory of its process, without Postgres'."""
        return float(psutil.Process(self.pid).memory_info().rss) / 1e6

    def command(self, *settings: str) -> list[str]:
        """What starts it."""
        return [PYTHON, "-P", watched_server.__file__, "serve", f"server.port={self.port}", *settings]

    def environment(self, *, lags: Path) -> dict[str, str]:
        """What it is started with; it writes down there how late its event loop is."""
        return {
            watched_server.FILE: str(lags),
            "LABLINK_HOME": str(self.home),
            "LABLINK_ADMIN_PASSWORD": self.password,
            "LABLINK_API_TOKEN": self.token,
        }

    def lag(self, path: str, *, since: float, what: str = "event loop late by, p99") -> Figure:
        """By how much its event loop was late from a moment of the monotonic clock until now."""
        lags = watched_server.read_samples(_lags_of(self.home), since=since)
        return Figure(path, what, MS, 1_000 * percentile(lags or [0.0], 99), None, "")

    def pause(self, path: str, *, since: float) -> Figure:
        """The longest time for which a collection of garbage held it, since a moment of the monotonic clock."""
        pauses = watched_server.read_samples(_lags_of(self.home).with_suffix(watched_server.PAUSES), since=since)
        return Figure(path, "longest pause for garbage", MS, 1_000 * max(pauses, default=0.0), None, "")

    def memory(self, path: str, what: str) -> Figure:
        """Its resident memory now, against that of a process that has imported the same packages and does nothing."""
        is_limit = "a process that imports the same and does nothing"
        return Figure(path, f"memory, {what}", MB, self.memory_mb, measure_idle_mb("lablink_ui.main"), is_limit)

    async def ask(self, method: str, path: str, body: object = None) -> Any:
        """Asks as an admin; returns the answer's content.

        Raises:
            BenchFailed: it was refused.
        """
        shot = await ask(self.port, request(method, path, body, token=self.token))
        if shot.status >= 300:
            raise BenchFailed(f"{method} {path}: {shot.status} {shot.body[:200].decode(errors='replace')}")
        return shot.json()


def fresh(home: Path) -> BenchServer:
    """One that does not run yet, with secrets of its own."""
    return BenchServer(home, free_port(), secrets.token_urlsafe(16), secrets.token_urlsafe(32))


@asynccontextmanager
async def serve(cores: frozenset[int], *settings: str) -> AsyncIterator[BenchServer]:
    """A fresh server on these cores; at the end nothing of it remains, whatever happened.

    Raises:
        BenchFailed: it did not start; says what it said.
    """
    with tempfile.TemporaryDirectory(prefix="lablink-bench-", ignore_cleanup_errors=True) as directory:
        home = Path(directory) / "home"
        server = fresh(home)
        async with running(
            server.command(*settings),
            server.port,
            "/readyz",
            cores=cores,
            directory=Path(directory),
            environment=server.environment(lags=_lags_of(home)),
        ) as pid:
            try:
                yield replace(server, pid=pid)
            finally:
                # Local VMs outlive a server, as those of a cloud would.
                await asyncio.to_thread(end_vms, home / "vms")
        await _end_leftovers(home)


@asynccontextmanager
async def running_agent(server: BenchServer, hostname: str, token: str, *, cores: frozenset[int]) -> AsyncIterator[int]:
    """A real agent within the block; its number."""
    home = server.home.parent / hostname
    home.mkdir(mode=0o700)
    secret = home / "enrolment-token"
    secret.write_text(token, encoding="utf-8")
    command = [PYTHON, "-m", "agent", "--hostname", hostname, "--home", str(home / "home")]
    command += ["--server", server.url, "--enrolment-token-file", str(secret)]
    async with _running(command, home, cores, {}) as process:
        yield process.pid


@asynccontextmanager
async def running(
    command: Sequence[str],
    port: int,
    ready_path: str,
    *,
    cores: frozenset[int],
    directory: Path,
    environment: dict[str, str] | None = None,
) -> AsyncIterator[int]:
    """A process that serves on ``port`` within the block; its number. Our own environment's LABLINK_… stay out.

    Raises:
        BenchFailed: it ended, or did not answer 200 on ``ready_path`` in time.
    """
    async with _running(command, directory, cores, environment or {}) as process:
        await _until_ready(process, port, ready_path, directory / LOG)
        yield process.pid


@asynccontextmanager
async def _running(
    command: Sequence[str], directory: Path, cores: frozenset[int], environment: dict[str, str]
) -> AsyncIterator[asyncio.subprocess.Process]:
    ours = {key: value for key, value in os.environ.items() if not key.startswith("LABLINK_")}
    with (directory / LOG).open("wb") as output, pinned_to(cores):
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=directory,
            env={**ours, **environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        await _end(process)


def measure_idle_mb(module: str) -> float:
    """Resident memory (MB) of a Python that has imported a module and does nothing.

    Raises:
        BenchFailed: it could not be imported.
    """
    look = f"import {module}, psutil; print(psutil.Process().memory_info().rss)"
    done = subprocess.run([PYTHON, "-P", "-c", look], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchFailed(f"import {module}: {done.stderr[-500:]}")
    return int(done.stdout.split()[-1]) / 1e6


def _lags_of(home: Path) -> Path:
    return home.with_name("lags")


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _until_ready(process: asyncio.subprocess.Process, port: int, path: str, log: Path) -> None:
    end = time.monotonic() + READY_S
    while time.monotonic() < end and process.returncode is None:
        with contextlib.suppress(OSError, BenchFailed):
            if (await ask(port, request("GET", path))).status == OK:
                return
        await asyncio.sleep(LOOK_S)
    said = log.read_text(encoding="utf-8", errors="replace")[-2_000:]
    raise BenchFailed(f"the server {'did not get ready' if process.returncode is None else 'ended'}: {said}")


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_S)
    except TimeoutError:
        process.kill()
        await process.wait()


def end_vms(root: Path) -> None:
    """Ends the local VMs under a directory, however they came there."""
    vms = LocalVms(root)
    for hostname in vms.list_existing():
        vms.stop(hostname)


async def _end_leftovers(home: Path) -> None:
    """What a server that had to be killed leaves running; after a clean end there is nothing."""
    for directory in (home / "pools").glob("*"):
        await end_leftover(directory, grace_s=2)
    if (home / "postgres" / "postmaster.pid").exists():
        embedded = EmbeddedPostgres(home)
        await embedded.start()
        await embedded.stop()
