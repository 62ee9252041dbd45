"""Typing in many terminals at once, with real agents and shells, in the page's own protocol; against a bare echo."""

from __future__ import annotations

import asyncio
import math
import random
import re
import struct
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from websockets.asyncio.client import ClientConnection, connect

from lablink_ui.bench.conditions import Cores, Sizes
from lablink_ui.bench.figures import MS, BenchFailed, Figure, Report
from lablink_ui.bench.loadgen import percentile
from lablink_ui.bench.server import LOOK_S, BenchServer, free_port, running, serve

A_SEAT = 8
SEATS_S, PROMPT_S, ECHO_S = 60.0, 30.0, 10.0
CREATED = 201
SEED = 11
INPUT, ACKNOWLEDGE = b"\x00", b"\x02"
_LIMIT_IS = "a bare websocket echo of the same framework, the same keys at the same times"


@dataclass(slots=True)
class _Typist:
    """One person at one terminal: presses a key, waits for its echo, and pauses as people do."""

    connection: ClientConnection
    header: int
    says_how_far: bool
    echo_s: list[float] = field(default_factory=list)
    seen: bytes = b""
    came: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self) -> None:
        """Takes what comes."""
        async for frame in self.connection:
            if not isinstance(frame, bytes):
                continue
            self.seen += frame[self.header :]
            self.came.set()
            if self.says_how_far:
                (start,) = struct.unpack(">Q", frame[:8])
                await self.connection.send(ACKNOWLEDGE + struct.pack(">Q", start + len(frame) - 8))

    async def until(self, fact: Callable[[bytes], object], within_s: float) -> None:
        """Waits for something to be seen.

        Raises:
            BenchFailed: it was not in time.
        """
        try:
            async with asyncio.timeout(within_s):
                while not fact(self.seen):
                    self.came.clear()
                    await self.came.wait()
        except TimeoutError:
            raise BenchFailed(
                f"a terminal did not answer within {within_s:.0f} s; it showed {self.seen[-200:]!r}"
            ) from None

    async def type(self, keys: int, pause_s: float, seed: int) -> None:
        """Presses keys, at random moments."""
        chance = random.Random(seed)  # noqa: S311 - the same in every run
        await asyncio.sleep(chance.uniform(0, pause_s))
        for _ in range(keys):
            self.seen, began = b"", time.perf_counter()
            await self.connection.send(INPUT + b"x")
            await self.until(lambda seen: b"x" in seen, ECHO_S)
            self.echo_s.append(time.perf_counter() - began)
            await asyncio.sleep(chance.uniform(0.5, 1.5) * pause_s)


async def measure(sizes: Sizes, cores: Cores) -> Report:
    """So many terminals, on machines of their own, each typing; then the same keys into the bare echo.

    Raises:
        BenchFailed: a terminal did not open, or a key was not echoed.
    """
    machines = math.ceil(sizes.terminals / A_SEAT)
    settings = (f"pool.default.max={machines}", "pool.default.terminal=true")
    async with serve(cores.server, *settings) as server, _open(server, machines, sizes.terminals) as typists:
        ours = await _type(typists, sizes)
    async with _serve_bare(cores) as port, _connect_bare(port, sizes.terminals) as typists:
        bare = await _type(typists, sizes)
    name = f"{sizes.terminals} terminals, a key each {sizes.key_pause_s:g} s"
    return Report(
        [
            Figure("terminal echo", f"p{percent}, {name}", MS, _ms(ours, percent), _ms(bare, percent), _LIMIT_IS)
            for percent in (50, 95)
        ],
        [f"terminal echo: real shells of {machines} local machines; agents and shells share the server's core."],
    )


def _ms(seconds: Sequence[float], percent: float) -> float:
    return 1_000 * percentile(seconds, percent)


async def _type(typists: Sequence[_Typist], sizes: Sizes) -> list[float]:
    await asyncio.gather(
        *(typist.type(sizes.keys, sizes.key_pause_s, SEED + number) for number, typist in enumerate(typists))
    )
    return [each for typist in typists for each in typist.echo_s]


@asynccontextmanager
async def _open(server: BenchServer, machines: int, count: int) -> AsyncIterator[list[_Typist]]:
    created = await server.ask("POST", "/api/admin/create", {"pool": "default", "count": machines})
    await _until_available(server, len(created["hostnames"]))
    async with AsyncExitStack() as stack:
        cookies = await asyncio.gather(*(_claim(stack, server, number) for number in range(machines)))
        addresses = [await _open_terminal(*cookies[number % machines]) for number in range(count)]
        typists = [_Typist(await stack.enter_async_context(_dial(*each)), 8, says_how_far=True) for each in addresses]
        async with _reading(typists):
            for typist in typists:
                await typist.until(lambda seen: re.search(rb"\$ ", seen), PROMPT_S)
            yield typists


async def _until_available(server: BenchServer, count: int) -> None:
    end = time.monotonic() + SEATS_S
    while time.monotonic() < end:
        vms = (await server.ask("GET", "/api/admin/instances"))["instances"]
        if sum(vm["status"] == "available" for vm in vms) >= count:
            return
        await asyncio.sleep(LOOK_S)
    raise BenchFailed(f"the {count} machines were not available within {SEATS_S:.0f} s")


async def _claim(stack: AsyncExitStack, server: BenchServer, number: int) -> tuple[httpx.AsyncClient, str]:
    client = await stack.enter_async_context(httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=30))
    client.headers["Origin"] = server.url
    await client.get("/")
    answer = await client.post("/api/request_vm", json={"email": f"bench-{number}@example.org", "pool": "default"})
    if answer.status_code != CREATED:
        raise BenchFailed(f"a claim was answered {answer.status_code}: {answer.text[:200]}")
    return client, server.url


async def _open_terminal(client: httpx.AsyncClient, url: str) -> tuple[str, dict[str, str]]:
    end = time.monotonic() + SEATS_S
    while time.monotonic() < end:
        answer = await client.post("/api/seat/terminals")
        if answer.status_code == CREATED:
            cookie = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
            address = f"{url.replace('http', 'ws', 1)}/api/seat/terminals/{answer.json()['id']}"
            return address, {"Origin": url, "Cookie": cookie}
        await asyncio.sleep(LOOK_S)
    raise BenchFailed(f"a terminal was not opened: {answer.status_code} {answer.text[:200]}")


def _dial(address: str, headers: dict[str, str]) -> connect:
    return connect(address, additional_headers=headers, proxy=None, compression=None, ping_interval=None)


@asynccontextmanager
async def _reading(typists: Sequence[_Typist]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(typist.read()) for typist in typists]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def _serve_bare(cores: Cores) -> AsyncIterator[int]:
    port = free_port()
    command = [sys.executable, "-m", "lablink_ui.bench.bare_echo", str(port)]
    with tempfile.TemporaryDirectory(prefix="lablink-bench-") as directory:
        async with running(command, port, "/healthz", cores=cores.server, directory=Path(directory)):
            yield port


@asynccontextmanager
async def _connect_bare(port: int, count: int) -> AsyncIterator[list[_Typist]]:
    async with AsyncExitStack() as stack:
        typists = [
            _Typist(await stack.enter_async_context(_dial(f"ws://127.0.0.1:{port}/echo", {})), 1, says_how_far=False)
            for _ in range(count)
        ]
        async with _reading(typists):
            yield typists
