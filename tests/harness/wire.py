"""A cable that can be cut: a TCP proxy on loopback between a browser and a server."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self


class Wire:
    """Forwards to a port. While it is cut nothing goes through; whoever is connected hears nothing, as with Wi-Fi."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._is_whole = asyncio.Event()
        self._is_whole.set()
        self._connections: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self._drop()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def cut(self) -> None:
        """From now on silence, for old and new connections."""
        self._is_whole.clear()

    def mend(self) -> None:
        """What was connected before is dead; new connections come through."""
        self._drop()
        self._is_whole.set()

    def _drop(self) -> None:
        for writer in self._connections:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            await self._is_whole.wait()
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
            self._connections.add(back)
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        except OSError:
            pass
        finally:
            writer.close()
            self._connections.discard(writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while content := await reader.read(65_536):
                await self._is_whole.wait()
                writer.write(content)
                await writer.drain()
        with contextlib.suppress(OSError):
            writer.close()
