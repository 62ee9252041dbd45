"""A cable that can be cut: a TCP proxy on loopback between a browser and a server."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import socket
import struct
from pathlib import Path
from typing import Self

# linux/filter.h and asm-generic/socket.h: a program of one instruction, which takes nothing of what comes.
_TAKE_NOTHING = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
_SO_ATTACH_FILTER = 26


class Wire:
    """Forwards to a port or a socket of this machine. While it is cut nothing goes through; whoever is connected hears
    nothing, as with Wi-Fi.
    """

    def __init__(self, target: int | Path) -> None:
        self._target = target
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
        return f"http://127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def cut(self) -> None:
        """From now on silence, for old and new connections."""
        self._is_whole.clear()

    def vanish(self) -> None:
        """As when a host is gone: what is sent on the connections that there are is not even acknowledged."""
        program = struct.pack("HP", 1, ctypes.addressof(_TAKE_NOTHING))
        for writer in self._connections:
            if writer.get_extra_info("socket").family == socket.AF_INET:
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)

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
            there, back = await self._connect()
            self._connections.add(back)
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        except OSError:
            pass
        finally:
            writer.close()
            self._connections.discard(writer)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._target, Path):
            return await asyncio.open_unix_connection(self._target)
        return await asyncio.open_connection("127.0.0.1", self._target)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while content := await reader.read(65_536):
                await self._is_whole.wait()
                writer.write(content)
                await writer.drain()
        with contextlib.suppress(OSError):
            writer.close()
