"""A slow link: a relay on loopback that carries bytes as a poor network would, for all its connections together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Self

CHUNK = 1_460


class SlowLink:
    """Forwards to a port of this machine: so many bits a second each way, and so long there and back.

    To connect costs a round trip, as it does for TCP; nothing is lost.
    """

    def __init__(self, port: int, *, bits_per_s: float, round_trip_s: float) -> None:
        self._target, self._one_way_s = port, round_trip_s / 2
        self._bytes_per_s = bits_per_s / 8
        self._free_at = {"up": 0.0, "down": 0.0}
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.carried = {"up": 0, "down": 0}

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in (tasks := tuple(self._tasks)):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await asyncio.sleep(2 * self._one_way_s)
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
            try:
                await asyncio.gather(self._pump("up", reader, back), self._pump("down", there, writer))
            finally:
                back.close()
        writer.close()

    async def _pump(self, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Reads on while what was read before is still on its way."""
        loop, under_way = asyncio.get_running_loop(), asyncio.Queue[tuple[float, bytes]]()
        arriving = asyncio.create_task(_arrive(under_way, writer))
        try:
            while content := await reader.read(CHUNK):
                sent_at = max(loop.time(), self._free_at[way]) + len(content) / self._bytes_per_s
                self._free_at[way] = sent_at
                self.carried[way] += len(content)
                under_way.put_nowait((sent_at + self._one_way_s, content))
                # No further ahead than the link: else one connection would have it for itself.
                await asyncio.sleep(max(0.0, sent_at - loop.time()))
            under_way.put_nowait((loop.time() + self._one_way_s, b""))
            await arriving
        finally:
            arriving.cancel()


async def _arrive(under_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
    loop = asyncio.get_running_loop()
    while True:
        at, content = await under_way.get()
        await asyncio.sleep(max(0.0, at - loop.time()))
        if not content:
            break
        writer.write(content)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()


async def time_bytes(make: Callable[[int], SlowLink], count: int) -> float:
    """Seconds until so many bytes, asked for by one, came over such a link in one piece: what no page can beat."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(bytes(count))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    loop = asyncio.get_running_loop()
    async with server, make(server.sockets[0].getsockname()[1]) as link:
        began = loop.time()
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        writer.write(b"?")
        await reader.readexactly(count)
        took_s = loop.time() - began
        writer.close()
    return took_s
