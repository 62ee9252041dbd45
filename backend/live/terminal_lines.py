"""One terminal: its agent's end, the browsers that look into it, and what goes from the one to the others."""

from __future__ import annotations

import asyncio
import json
import logging
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from starlette.websockets import WebSocketDisconnect

from backend.live.output import Output
from backend.services.enrolments import AgentIdentity
from backend.services.terminals import Standing

# Close codes: not yours (any more), over, too slow, another connection took its place; and two of the standard's.
NOT_YOURS, OVER, TOO_SLOW, REPLACED, TOO_BIG, TRY_AGAIN = 4_403, 4_410, 4_408, 4_409, 1_009, 1_013
CHUNK = 32 * 1024
BEAT_S, SLOW_S, PARTING_S = 5.0, 10.0, 0.8
# What a connection raises that is just ending.
GOING = (WebSocketDisconnect, RuntimeError, OSError)

logger = logging.getLogger(__name__)


class Socket(Protocol):
    """What a connection must be able to do."""

    async def send_bytes(self, data: bytes) -> None:
        """Sends a binary frame."""

    async def send_text(self, data: str) -> None:
        """Sends a text frame."""

    async def receive(self) -> Any:
        """The next ASGI message."""

    async def close(self, code: int, reason: str | None = None) -> None:
        """Closes it."""


@dataclass(eq=False)
class Viewer:
    """One browser that looks into a terminal. ``is_allowed`` says whether it still may; watchers may only look."""

    socket: Socket
    cursor: int
    is_allowed: Callable[[Standing], Awaitable[bool]]
    may_type: Callable[[Standing], bool]
    is_owner: bool = True
    seen: int = 0
    can_type: bool = True
    said: list[dict[str, object]] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    parting: tuple[int, str] | None = None
    feeding: asyncio.Task[None] | None = None

    def tell(self, **said: object) -> None:
        """Queues a message. There are few of them, and none grows."""
        self.said.append(said)
        self.news.set()


@dataclass(eq=False)
class Machine:
    """The agent's end."""

    identity: AgentIdentity
    token: str
    socket: Socket
    has_introduced_itself: bool = False


@dataclass(eq=False)
class Line:
    """One terminal."""

    id: int
    output: Output = field(default_factory=Output)
    machine: Machine | None = None
    viewers: set[Viewer] = field(default_factory=set)
    claim_id: int = 0
    early: bytearray = field(default_factory=bytearray)
    size: tuple[int, int] | None = None
    over: str | None = None
    shown: int = 0
    used_at: float = float("-inf")
    called_at: float = float("-inf")

    @property
    def owners(self) -> list[Viewer]:
        """The browsers of who holds the seat."""
        return [viewer for viewer in self.viewers if viewer.is_owner]

    async def feed(self, viewer: Viewer) -> None:
        """Sends a browser what it has not seen, as fast as it takes it, until the terminal is over."""
        while True:
            viewer.news.clear()
            if not await self._feed_once(viewer):
                return
            if viewer.cursor >= self.output.last and not (viewer.said or self.over or viewer.parting):
                try:
                    async with asyncio.timeout(BEAT_S):
                        await viewer.news.wait()
                except TimeoutError:
                    viewer.tell(beat=True)

    async def send(self, frame: bytes) -> None:
        """To the agent, if it is connected; one that is just going is not an error."""
        if self.machine is not None:
            try:
                await self.machine.socket.send_bytes(frame)
            except GOING:
                logger.debug("terminal %s: its agent's connection is going", self.id)

    def tell_all(self, **said: object) -> None:
        """Queues a message for every browser."""
        for viewer in self.viewers:
            viewer.tell(**said)

    def wake_all(self) -> None:
        """There is something to send."""
        for viewer in self.viewers:
            viewer.news.set()

    async def send_away(self, viewer: Viewer, code: int, why: str) -> None:
        """From here on nothing it says is heard and nothing is shown to it, even if it does not take the good-bye."""
        self.viewers.discard(viewer)
        viewer.parting = (code, why)
        viewer.news.set()
        if viewer.feeding is not None:
            await asyncio.wait({viewer.feeding}, timeout=PARTING_S)
            viewer.feeding.cancel()

    async def let_go(self) -> None:
        """All who are connected come again: their shell goes on, and what they have not seen is kept by the agent."""
        sockets = [viewer.socket for viewer in self.viewers]
        if self.machine is not None:
            sockets.append(self.machine.socket)
        await asyncio.gather(*(close(socket, TRY_AGAIN) for socket in sockets))

    def drop_slow_watchers(self) -> None:
        """Whoever looks on and falls behind what is kept must come anew; the owner sees a gap instead."""
        for viewer in self.viewers:
            if not viewer.is_owner and 0 < viewer.cursor < self.output.first and viewer.feeding is not None:
                viewer.feeding.cancel()

    async def _feed_once(self, viewer: Viewer) -> bool:
        """One round. Returns whether there may be more to send."""
        if viewer.parting is not None:
            await _part(viewer, *viewer.parting)
            return False
        try:
            async with asyncio.timeout(SLOW_S):
                while viewer.said:
                    await viewer.socket.send_text(json.dumps(viewer.said.pop(0)))
                missing = self.output.first - viewer.cursor
                if missing > 0:
                    if not viewer.is_owner and viewer.cursor > 0:
                        raise TimeoutError
                    viewer.cursor = self.output.first
                    await viewer.socket.send_text(json.dumps({"gap": missing}))
                content = self.output.read(viewer.cursor, CHUNK) if viewer.cursor < self.output.last else b""
                if content:
                    await viewer.socket.send_bytes(struct.pack(">Q", viewer.cursor) + content)
                    viewer.cursor += len(content)
                    if viewer.is_owner:
                        self.shown = max(self.shown, viewer.cursor)
        except TimeoutError:
            await close(viewer.socket, TOO_SLOW)
            return False
        except GOING:
            return False
        if self.over and viewer.cursor >= self.output.last:
            await _part(viewer, OVER, self.over)
            return False
        return True


async def _part(viewer: Viewer, code: int, why: str) -> None:
    try:
        async with asyncio.timeout(1):
            await viewer.socket.send_text(json.dumps({"over": why}))
    except GOING:
        pass
    await close(viewer.socket, code)


async def close(socket: Socket, code: int) -> None:
    """Closes a connection that may be going by itself."""
    try:
        async with asyncio.timeout(1):
            await socket.close(code)
    except GOING:
        logger.debug("a connection of a terminal was closed already")
