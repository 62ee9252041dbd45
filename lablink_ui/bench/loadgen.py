"""A lean HTTP client for load: keep-alive connections, one request at a time on each, hardly anything parsed.

A full client costs more than the server does; then the bench would measure the client.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from lablink_ui.bench.figures import BenchFailed

ANSWER_S = 30.0
# Above this share of its core the load may be what is measured.
BUSY = 0.85
Item = TypeVar("Item")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def request(method: str, path: str, body: object = None, *, token: str | None = None) -> bytes:
    """A whole request, ready to be sent as often as wanted."""
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(content)}"]
    if body is not None:
        lines.append("Content-Type: application/json")
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    return "\r\n".join([*lines, "", ""]).encode() + content


@dataclass(slots=True)
class Shot:
    """One request's answer; ``latency_s`` runs from its first byte sent to the answer's last byte received."""

    status: int = 0
    body: bytes = b""
    latency_s: float = 0.0

    def json(self) -> Any:
        """The answer's content."""
        return json.loads(self.body)


@dataclass(slots=True)
class Load:
    """What a drive saw: its shots in the order in which they were sent, and how busy the load itself was."""

    shots: list[Shot] = field(default_factory=list)
    seconds: float = 0.0
    core_share: float = 0.0

    @property
    def per_s(self) -> float:
        """Answers per second."""
        return len(self.shots) / self.seconds

    def percentile_ms(self, percent: float) -> float:
        """The latency that this share of the answers did not exceed."""
        return 1_000 * percentile([shot.latency_s for shot in self.shots], percent)

    def check(self, status: int) -> None:
        """Makes sure of every answer.

        Raises:
            BenchFailed: one had another status; says how many and what the first was.
        """
        wrong = [shot for shot in self.shots if shot.status != status]
        if wrong:
            raise BenchFailed(
                f"{len(wrong)} of {len(self.shots)} answers were not {status}; the first: "
                f"{wrong[0].status} {wrong[0].body[:200].decode(errors='replace')}"
            )

    def add(self, other: Load) -> None:
        """Goes on with another drive of the same kind."""
        seconds = self.seconds + other.seconds
        busy_s = self.core_share * self.seconds + other.core_share * other.seconds
        self.shots += other.shots
        self.seconds, self.core_share = seconds, busy_s / seconds

    def note_if_busy(self, what: str) -> list[str]:
        """What to say where the load itself may have been the limit."""
        if self.core_share < BUSY:
            return []
        return [f"{what}: the load used {self.core_share:.0%} of its core and may have been the limit itself."]


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


async def drive(port: int, requests: Iterable[bytes], *, at_once: int) -> Load:
    """Sends requests over ``at_once`` connections, each taking the next one as soon as it has its answer.

    Raises:
        BenchFailed: the server closed a connection or did not answer in time.
    """
    return await drive_all([port], requests, at_once=at_once)


async def drive_all(ports: Sequence[int], requests: Iterable[bytes], *, at_once: int) -> Load:
    """As ``drive``, with the connections shared out evenly between several servers.

    Raises:
        BenchFailed: as ``drive`` does.
    """
    connections = [await connect(ports[number % len(ports)]) for number in range(at_once)]
    try:
        return await shoot([connection.ask for connection in connections], requests)
    finally:
        for connection in connections:
            connection.close()


async def shoot(shooters: Sequence[Callable[[Item], Awaitable[tuple[int, bytes]]]], items: Iterable[Item]) -> Load:
    """Lets every shooter take items, one after the other, until none is left. Shooters return status and body."""
    load, rest = Load(), iter(items)

    async def work(shooter: Callable[[Item], Awaitable[tuple[int, bytes]]]) -> None:
        for item in rest:
            shot = Shot()
            load.shots.append(shot)
            began = time.perf_counter()
            shot.status, shot.body = await shooter(item)
            shot.latency_s = time.perf_counter() - began

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(work(shooter) for shooter in shooters))
    load.seconds = time.perf_counter() - began
    load.core_share = (time.process_time() - cpu) / load.seconds
    return load


async def ask(port: int, content: bytes) -> Shot:
    """One request on a connection of its own."""
    return (await drive(port, [content], at_once=1)).shots[0]


class Connection(asyncio.Protocol):
    """One connection. The server announces the length of every answer that we ask for."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._received = b""

    async def ask(self, content: bytes) -> tuple[int, bytes]:
        """Sends a request; returns the answer's status and body.

        Raises:
            BenchFailed: the server closed the connection or did not answer in time.
        """
        assert self._transport is not None
        loop = asyncio.get_running_loop()
        self._answer = loop.create_future()
        self._transport.write(content)
        # A timer, not a wait_for: that costs a task for every request.
        timer = loop.call_later(ANSWER_S, self._give_up, f"no answer within {ANSWER_S:.0f} s")
        try:
            return await self._answer
        finally:
            timer.cancel()

    def close(self) -> None:
        """Hangs up."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        # uvloop's is one by its deeds alone.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """A part of an answer."""
        self._received += data
        head = self._received.find(b"\r\n\r\n")
        length = _LENGTH.search(self._received, 0, head) if head >= 0 else None
        if length is None:
            return
        end = head + 4 + int(length[1])
        if len(self._received) < end or self._answer is None or self._answer.done():
            return
        self._answer.set_result((int(self._received[9:12]), self._received[head + 4 : end]))
        self._received = self._received[end:]

    def connection_lost(self, _exc: Exception | None) -> None:
        """It has ended."""
        self._give_up("the server closed the connection")

    def _give_up(self, why: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(BenchFailed(why))


async def connect(port: int) -> Connection:
    """Opens a connection to this port of loopback."""
    _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
    return connection
