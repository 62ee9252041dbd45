"""Seats and their terminals without a browser: a cookie, the REST routes, and the websocket as the page speaks it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.harness.server import Server
from tests.harness.waiting import until

INPUT, RESIZE, ACKNOWLEDGE = b"\x00", b"\x01", b"\x02"


def plain(output: bytes) -> str:
    """What a person reads: without the sequences that steer a terminal."""
    return re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", output.decode(errors="replace")).replace("\r", "")


class Screen:
    """One connection to a terminal, and all that came over it."""

    def __init__(self, connection: ClientConnection, offset: int = 0, *, takes: bool = True) -> None:
        self._connection = connection
        self.offset, self.output, self.said = offset, b"", []
        self.acknowledges = True
        self._taking = asyncio.Event()
        if takes:
            self._taking.set()
        self._reading = asyncio.create_task(self._read())

    @property
    def text(self) -> str:
        return plain(self.output)

    @property
    def close_code(self) -> int | None:
        return self._connection.close_code

    async def type(self, text: str) -> None:
        """Types; the last of it is usually a newline."""
        await self._connection.send(INPUT + text.encode())

    async def resize(self, columns: int, rows: int) -> None:
        await self._connection.send(RESIZE + struct.pack(">HH", columns, rows))

    async def acknowledge(self) -> None:
        """Says how far it has got."""
        await self._connection.send(ACKNOWLEDGE + struct.pack(">Q", self.offset))

    def take_up(self) -> None:
        """From now on takes what comes."""
        self._taking.set()

    async def shows(self, *words: str, within_s: float = 30) -> str:
        """Waits until all of these words were shown."""
        await until(
            lambda: all(word in self.text for word in words),
            within_s=within_s,
            every_s=0.01,
            what=lambda: f"{words} in {self.text[-500:]!r} (closed: {self.close_code}, said: {self.said})",
        )
        return self.text

    async def says(self, key: str, within_s: float = 30) -> object:
        """Waits for a message with this key; returns its value."""
        await until(lambda: any(key in each for each in self.said), within_s=within_s, every_s=0.01, what=key)
        return next(each[key] for each in reversed(self.said) if key in each)

    async def closed(self, within_s: float = 5) -> int:
        """Waits for the end of the connection; returns its code."""
        await until(lambda: self.close_code is not None, within_s=within_s, every_s=0.01, what="the socket closes")
        return self.close_code

    async def leave(self) -> None:
        await self._connection.close()
        await self._reading

    def cut(self) -> None:
        """Ends the connection without a good-bye."""
        self._connection.transport.abort()

    async def _read(self) -> None:
        await self._taking.wait()
        with contextlib.suppress(ConnectionClosed):
            async for frame in self._connection:
                if isinstance(frame, str):
                    self.said.append(json.loads(frame))
                    continue
                (start,) = struct.unpack(">Q", frame[:8])
                assert start >= self.offset, (start, self.offset)
                self.output += frame[8:]
                self.offset = start + len(frame) - 8
                if self.acknowledges:
                    await self.acknowledge()


class Seat:
    """A researcher's seat, by cookie."""

    def __init__(self, server: Server, client: httpx.AsyncClient) -> None:
        self.server, self.client = server, client
        self.hostname = self.key = ""

    @property
    def headers(self) -> dict[str, str]:
        """What a page of the server sends along."""
        return {"Origin": self.server.url}

    @property
    def cookie(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self.client.cookies.items())

    async def claim(self, email: str, pool: str = "default") -> Seat:
        """Claims and waits until the seat is active."""
        await self.request(email, pool)
        body = {"email": email, "pool": pool}

        async def is_active() -> bool:
            again = await self.client.post("/api/request_vm", json=body, headers=self.headers)
            return again.json()["status"] == "active"

        await until(is_active, every_s=0.02, what="the seat is active")
        return self

    async def request(self, email: str, pool: str = "default") -> Seat:
        """Claims a free machine; it is up to its agent to make the seat active."""
        await self.client.get("/")
        answer = await self.client.post("/api/request_vm", json={"email": email, "pool": pool}, headers=self.headers)
        assert answer.status_code == 201, answer.text
        self.hostname, self.key = answer.json()["hostname"], answer.json()["seat_key"]
        return self

    async def open(self) -> int:
        """Opens a terminal; returns its number."""
        answer = await self.client.post("/api/seat/terminals", headers=self.headers)
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    async def connect(self, terminal_id: int, *, offset: int = 0, **headers: str) -> Screen:
        """Connects as the page does."""
        given = {"Origin": self.server.url, "Cookie": self.cookie, **headers}
        return await connect_to(self.server, f"/api/seat/terminals/{terminal_id}?from={offset}", given, offset)

    async def start(self) -> Screen:
        """Opens a terminal and waits for its prompt."""
        screen = await self.connect(await self.open())
        await screen.shows(f"@{self.hostname}:~$ ")
        return screen


async def connect_to(
    server: Server, path: str, headers: dict[str, str], offset: int = 0, *, takes: bool = True
) -> Screen:
    """A websocket; a refusal of the handshake raises InvalidStatus."""
    url = server.url.replace("http", "ws", 1) + path
    connection = await connect(
        url,
        sock=None if takes else _with_little_room(server.port),
        additional_headers=headers,
        proxy=None,
        compression=None,
        max_size=None,
        ping_interval=None,
    )
    return Screen(connection, offset, takes=takes)


def _with_little_room(port: int) -> socket.socket:
    """A connection that is full soon: else the system takes megabytes for whoever takes nothing."""
    little = socket.socket()
    little.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    little.connect(("127.0.0.1", port))
    little.setblocking(False)
    return little


@asynccontextmanager
async def a_seat(server: Server, email: str, pool: str = "default") -> AsyncIterator[Seat]:
    """A claimed, active seat."""
    async with server.client() as client:
        yield await Seat(server, client).claim(email, pool)
