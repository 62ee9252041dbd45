"""A server to measure: `lablink serve` in a process and a data directory of its own, on cores of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.db.embedded import EmbeddedPostgres
from backend.provisioning.local_vms import LocalVms
from backend.provisioning.process import end_leftover
from lablink_ui.bench.conditions import pinned_to
from lablink_ui.bench.figures import BenchFailed
from lablink_ui.bench.loadgen import ask, request

READY_S = 90.0
STOP_S = 30.0
LOOK_S = 0.05
OK = 200
_LABLINK = "from lablink_ui.cli import main; raise SystemExit(main())"


@dataclass(frozen=True, slots=True)
class BenchServer:
    """A running server."""

    home: Path
    port: int
    password: str
    token: str

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def database_url(self) -> str:
        """Its embedded Postgres, as Postgres itself wrote down where it listens."""
        lines = (self.home / "postgres" / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        return f"postgresql://postgres@/postgres?host={lines[4].strip()}"

    async def ask(self, method: str, path: str, body: object = None) -> Any:
        """Asks as an admin; returns the answer's content.

        Raises:
            BenchFailed: it was refused.
        """
        shot = await ask(self.port, request(method, path, body, token=self.token))
        if shot.status >= 300:
            raise BenchFailed(f"{method} {path}: {shot.status} {shot.body[:200].decode(errors='replace')}")
        return shot.json()


@asynccontextmanager
async def serve(cores: frozenset[int], *settings: str) -> AsyncIterator[BenchServer]:
    """A fresh server on these cores; at the end nothing of it remains, whatever happened.

    Raises:
        BenchFailed: it did not start; says what it said.
    """
    with tempfile.TemporaryDirectory(prefix="lablink-bench-", ignore_cleanup_errors=True) as directory:
        home = Path(directory) / "home"
        server = BenchServer(home, free_port(), secrets.token_urlsafe(16), secrets.token_urlsafe(32))
        command = [sys.executable, "-c", _LABLINK, "serve", f"server.port={server.port}", *settings]
        secret = {
            "LABLINK_HOME": str(home),
            "LABLINK_ADMIN_PASSWORD": server.password,
            "LABLINK_API_TOKEN": server.token,
        }
        async with running(command, server.port, "/readyz", cores=cores, directory=Path(directory), environment=secret):
            try:
                yield server
            finally:
                # Local VMs outlive a server, as those of a cloud would.
                await asyncio.to_thread(end_vms, home / "vms")
        await _end_leftovers(home)


@asynccontextmanager
async def running(
    command: Sequence[str],
    port: int,
    ready_path: str,
    *,
    cores: frozenset[int],
    directory: Path,
    environment: dict[str, str] | None = None,
) -> AsyncIterator[None]:
    """A process that serves on ``port`` within the block. Nothing of our own environment's LABLINK_… reaches it.

    Raises:
        BenchFailed: it ended, or did not answer 200 on ``ready_path`` in time.
    """
    log = directory / "output.log"
    ours = {key: value for key, value in os.environ.items() if not key.startswith("LABLINK_")}
    with log.open("wb") as output, pinned_to(cores):
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=directory,
            env={**ours, **(environment or {})},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        await _until_ready(process, port, ready_path, log)
        yield
    finally:
        await _end(process)


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
