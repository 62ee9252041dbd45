"""Terminals in this process: each joins its agent's connection with those of the browsers that look into it.

To browsers go binary frames of output (the offset of the first byte, 8 bytes big-endian, and the bytes) and text frames
of JSON: ``beat``, ``machine`` (whether its agent is connected), ``shown`` (how far any of the owner's browsers has got:
what programs asked before that was answered), ``gap`` (bytes that are gone), ``size``, and at the end ``over`` with the
reason. From browsers come binary frames whose first byte says what: input, size, how far they have got.

Of several processes a balancer chooses by the terminal's number, so that both ends meet in one. Where it chose anew in
between (a process has ended, or is back), browsers in one process call the agent that another one has: then all that is
connected with this terminal is let go, and meets where the balancer sends it now.
"""

from __future__ import annotations

import asyncio
import json
import logging
import struct
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

from starlette.websockets import WebSocketDisconnect

from backend.db.engine import Database
from backend.db.notices import Notice, NoticeListener, send_notice
from backend.errors import Unauthenticated, Unavailable
from backend.live.output import Output
from backend.services.actor import Actor
from backend.services.claim_times import touch_claim
from backend.services.enrolments import AgentIdentity
from backend.services.terminals import Standing, list_standing, record_connected, record_exit

INPUT, RESIZE, ACKNOWLEDGE, SEND_FROM, WATCH = range(5)
# Close codes: not yours (any more), over, too slow, another connection took its place; and two of the standard's.
NOT_YOURS, OVER, TOO_SLOW, REPLACED, TOO_BIG, TRY_AGAIN = 4_403, 4_410, 4_408, 4_409, 1_009, 1_013
MAX_FRAME, MAX_WORD, CHUNK = 64 * 1024, 1_000, 32 * 1024
# Typed before the machine is connected, in bytes; more is let go.
EARLY_INPUT = 16 * 1024
BEAT_S, SLOW_S, DOUBT_S, SETTLE_S, USE_S, PARTING_S = 5.0, 10.0, 5.0, 0.05, 60.0, 0.8
# For so long browsers wait for their agent before they call it.
CALL_S = 2.0
# What processes say to each other: who has the agent of this terminal? All come anew.
_CALL, _MEET = "terminal_calls", "terminal_meetings"
# What a connection raises that is just ending.
GOING = (WebSocketDisconnect, RuntimeError, OSError)
# What may change who may look.
_DOUBTFUL = {"claims", "seat_browsers", "terminals", "terminal_watches", "admin_sessions", "users", "enrolments"}

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
class _Machine:
    """The agent's end."""

    identity: AgentIdentity
    token: str
    socket: Socket
    has_introduced_itself: bool = False


@dataclass(eq=False)
class _Line:
    """One terminal."""

    id: int
    output: Output = field(default_factory=Output)
    machine: _Machine | None = None
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
        return [viewer for viewer in self.viewers if viewer.is_owner]


class Terminals:
    """All terminals that are connected to this process. ``run`` is its one task: it sends away who may look no more."""

    def __init__(
        self, db: Database, listener: NoticeListener, authenticate: Callable[[str], Awaitable[AgentIdentity]]
    ) -> None:
        self._db = db
        self._authenticate = authenticate
        self._lines: dict[int, _Line] = {}
        self._doubt = asyncio.Event()
        self._leaving: set[asyncio.Task[None]] = set()
        listener.subscribe(self._note, on_gap=self._doubt.set)

    async def run(self) -> None:
        """Looks every few seconds, and at once after a notice, who may still look, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(DOUBT_S):
                    await self._doubt.wait()
            except TimeoutError:
                pass
            self._doubt.clear()
            try:
                await self._send_away()
                await self._call()
            except Unavailable:
                # While nobody can be signed out, nobody is.
                logger.debug("the database is away: who looks into terminals was not checked")
            await asyncio.sleep(SETTLE_S)

    async def serve_machine(self, terminal_id: int, identity: AgentIdentity, token: str, socket: Socket) -> None:
        """Serves the agent's connection until its end. A newer one takes the place of an older."""
        line, machine = self._line(terminal_id), _Machine(identity, token, socket)
        former, line.machine = line.machine, machine
        try:
            if former is not None:
                await _close(former.socket, REPLACED)
            await self._welcome(line, machine)
            await self._hear_machine(line, machine)
        except GOING:
            logger.debug("terminal %s: its agent's connection broke", line.id)
        except Unavailable:
            # The agent comes again and says again what could not be kept.
            await _close(socket, TRY_AGAIN)
        finally:
            if line.machine is machine:
                line.machine = None
                self._expect_machine(line)
                _tell_all(line, machine=False)
            self._forget(line)

    async def serve_viewer(self, terminal_id: int, claim_id: int, viewer: Viewer) -> None:
        """Serves a browser's connection until its end; what is on its way to one that takes nothing is let go."""
        line = self._line(terminal_id)
        line.claim_id = claim_id
        line.viewers.add(viewer)
        self._expect_machine(line)
        viewer.seen = viewer.cursor
        viewer.tell(machine=line.machine is not None, shown=line.shown)
        if line.size and not viewer.is_owner:
            viewer.tell(size=line.size)
        viewer.feeding = asyncio.create_task(_feed(line, viewer))
        hearing = asyncio.create_task(self._hear_viewer(line, viewer))
        # Between the look at who may and this line, that may have changed.
        self._doubt.set()
        try:
            await self._attend(line)
            await asyncio.wait({viewer.feeding, hearing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            line.viewers.discard(viewer)
            for task in (viewer.feeding, hearing):
                task.cancel()
            for result in await asyncio.gather(viewer.feeding, hearing, return_exceptions=True):
                if isinstance(result, Exception):
                    logger.debug("terminal %s: a browser's connection broke: %r", line.id, result)
            await self._attend(line)
            self._forget(line)

    async def _welcome(self, line: _Line, machine: _Machine) -> None:
        send = machine.socket.send_bytes
        await send(struct.pack(">BQ", SEND_FROM, line.output.last))
        if line.size:
            await send(struct.pack(">BHH", RESIZE, *line.size))
        await self._attend(line)
        if line.early:
            early, line.early = bytes(line.early), bytearray()
            await send(bytes([INPUT]) + early)
        _tell_all(line, machine=True)

    async def _attend(self, line: _Line) -> None:
        """Tells the agent whether an owner looks, and how far."""
        owners = line.owners
        await _send(line, struct.pack(">BB", WATCH, bool(owners)))
        if owners:
            await self._acknowledge(line)

    async def _acknowledge(self, line: _Line) -> None:
        seen = max((viewer.seen for viewer in line.owners), default=0)
        await _send(line, struct.pack(">BQ", ACKNOWLEDGE, seen))

    async def _hear_machine(self, line: _Line, machine: _Machine) -> None:
        while True:
            message = await machine.socket.receive()
            if message["type"] != "websocket.receive":
                return
            content, text = message.get("bytes"), message.get("text")
            if content and 8 < len(content) <= MAX_FRAME:
                line.output.add(struct.unpack(">Q", content[:8])[0], content[8:])
                _wake_all(line)
                _drop_slow_watchers(line)
            elif text and len(text) <= MAX_WORD:
                await self._take_word(line, machine, text)

    async def _take_word(self, line: _Line, machine: _Machine, text: str) -> None:
        try:
            said = json.loads(text)
        except ValueError:
            return
        if not isinstance(said, dict):
            return
        identity = machine.identity
        if isinstance(said.get("isolation"), str) and not machine.has_introduced_itself:
            machine.has_introduced_itself = True
            await record_connected(self._db, identity.vm_id, line.id, said["isolation"])
        if isinstance(said.get("exit"), int):
            actor = Actor.agent(identity.hostname)
            line.over = await record_exit(self._db, identity.vm_id, line.id, said["exit"], actor=actor)
            _wake_all(line)
            await _close(machine.socket, OVER)

    async def _hear_viewer(self, line: _Line, viewer: Viewer) -> None:
        while True:
            message = await viewer.socket.receive()
            if message["type"] != "websocket.receive" or viewer not in line.viewers:
                return
            content = message.get("bytes") or b""
            if len(content) > MAX_FRAME or len(message.get("text") or "") > MAX_FRAME:
                await _close(viewer.socket, TOO_BIG)
                return
            if content[:1] == bytes([INPUT]) and viewer.can_type:
                await self._type(line, content)
            elif content[:1] == bytes([RESIZE]) and len(content) == 5 and viewer.is_owner:
                await self._resize(line, content)
            elif content[:1] == bytes([ACKNOWLEDGE]) and len(content) == 9:
                viewer.seen = max(viewer.seen, min(struct.unpack(">Q", content[1:])[0], viewer.cursor))
                if viewer.is_owner:
                    await self._acknowledge(line)

    async def _type(self, line: _Line, frame: bytes) -> None:
        if line.machine is not None:
            await _send(line, frame)
        else:
            line.early += frame[1 : 1 + EARLY_INPUT - len(line.early)]
        now = asyncio.get_running_loop().time()
        if now - line.used_at > USE_S:
            line.used_at = now
            try:
                await touch_claim(self._db, line.claim_id)
            except Unavailable:
                line.used_at = float("-inf")

    async def _resize(self, line: _Line, frame: bytes) -> None:
        columns, rows = struct.unpack(">HH", frame[1:])
        line.size = (min(max(columns, 2), 1_000), min(max(rows, 1), 1_000))
        await _send(line, struct.pack(">BHH", RESIZE, *line.size))
        for viewer in line.viewers:
            if not viewer.is_owner:
                viewer.tell(size=line.size)

    async def _send_away(self) -> None:
        if not self._lines:
            return
        # Those who come while the answer is on its way were looked at when they came, and may be newer than it.
        asked = [(line, tuple(line.viewers), line.machine) for line in self._lines.values()]
        standing = await list_standing(self._db, [line.id for line, _, _ in asked])
        leaving: list[Awaitable[None]] = []
        for line, viewers, machine in asked:
            now = standing.get(line.id, Standing(0, "it is gone"))
            for viewer in viewers:
                viewer.can_type = viewer.may_type(now)
                if not await viewer.is_allowed(now):
                    code = OVER if now.over else NOT_YOURS
                    leaving.append(_send_viewer_away(line, viewer, code, now.over or "it is not open here any more"))
            if now.over:
                # Whoever may still look sees the output to its end; the agent is told by the code.
                line.over = line.over or now.over
                _wake_all(line)
            if machine is not None and (now.over or not await self._is_valid(machine)):
                leaving.append(_close(machine.socket, OVER))
        await asyncio.gather(*leaving)

    def _expect_machine(self, line: _Line) -> None:
        loop = asyncio.get_running_loop()
        line.called_at = loop.time()
        loop.call_later(CALL_S, self._doubt.set)

    async def _call(self) -> None:
        """Calls the agents that browsers here wait for: another process may have them."""
        now = asyncio.get_running_loop().time()
        alone = [
            line
            for line in self._lines.values()
            if line.viewers and line.machine is None and now - line.called_at >= CALL_S
        ]
        for line in alone:
            line.called_at = now
        if alone:
            await send_notice(self._db, _CALL, [line.id for line in alone])

    def _hear_call(self, notice: Notice) -> None:
        lines = [self._lines[number] for number in notice.ids if number in self._lines]
        ours = [line.id for line in lines if line.machine is not None]
        if notice.table == _CALL and ours:
            self._begin(self._answer(ours))
        elif notice.table == _MEET:
            for line in lines:
                self._begin(_let_go(line))

    async def _answer(self, ours: list[int]) -> None:
        try:
            await send_notice(self._db, _MEET, ours)
        except Unavailable:
            logger.debug("the database is away: whoever calls will call again")

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _is_valid(self, machine: _Machine) -> bool:
        try:
            identity = await self._authenticate(machine.token)
        except Unauthenticated:
            return False
        return identity.vm_id == machine.identity.vm_id

    def _line(self, terminal_id: int) -> _Line:
        return self._lines.setdefault(terminal_id, _Line(terminal_id))

    def _forget(self, line: _Line) -> None:
        if not line.viewers and line.machine is None and self._lines.get(line.id) is line:
            del self._lines[line.id]

    def _note(self, notice: Notice) -> None:
        if self._lines and notice.table in _DOUBTFUL:
            self._doubt.set()
        elif notice.table in {_CALL, _MEET}:
            self._hear_call(notice)


async def _feed(line: _Line, viewer: Viewer) -> None:
    """Sends a browser what it has not seen, as fast as it takes it, until the terminal is over."""
    while True:
        viewer.news.clear()
        if not await _feed_once(line, viewer):
            return
        if viewer.cursor >= line.output.last and not (viewer.said or line.over or viewer.parting):
            try:
                async with asyncio.timeout(BEAT_S):
                    await viewer.news.wait()
            except TimeoutError:
                viewer.tell(beat=True)


async def _feed_once(line: _Line, viewer: Viewer) -> bool:
    """One round. Returns whether there may be more to send."""
    if viewer.parting is not None:
        await _part(viewer, *viewer.parting)
        return False
    try:
        async with asyncio.timeout(SLOW_S):
            while viewer.said:
                await viewer.socket.send_text(json.dumps(viewer.said.pop(0)))
            missing = line.output.first - viewer.cursor
            if missing > 0:
                if not viewer.is_owner and viewer.cursor > 0:
                    raise TimeoutError
                viewer.cursor = line.output.first
                await viewer.socket.send_text(json.dumps({"gap": missing}))
            content = line.output.read(viewer.cursor, CHUNK) if viewer.cursor < line.output.last else b""
            if content:
                await viewer.socket.send_bytes(struct.pack(">Q", viewer.cursor) + content)
                viewer.cursor += len(content)
                if viewer.is_owner:
                    line.shown = max(line.shown, viewer.cursor)
    except TimeoutError:
        await _close(viewer.socket, TOO_SLOW)
        return False
    except GOING:
        return False
    if line.over and viewer.cursor >= line.output.last:
        await _part(viewer, OVER, line.over)
        return False
    return True


async def _send(line: _Line, frame: bytes) -> None:
    """To the agent, if it is connected; one that is just going is not an error."""
    if line.machine is not None:
        try:
            await line.machine.socket.send_bytes(frame)
        except GOING:
            logger.debug("terminal %s: its agent's connection is going", line.id)


async def _send_viewer_away(line: _Line, viewer: Viewer, code: int, why: str) -> None:
    """From here on nothing it says is heard and nothing is shown to it, even if it does not take the good-bye."""
    line.viewers.discard(viewer)
    viewer.parting = (code, why)
    viewer.news.set()
    if viewer.feeding is not None:
        await asyncio.wait({viewer.feeding}, timeout=PARTING_S)
        viewer.feeding.cancel()


async def _let_go(line: _Line) -> None:
    """All who are connected come again: their shell goes on, and what they have not seen is kept by the agent."""
    sockets = [viewer.socket for viewer in line.viewers]
    if line.machine is not None:
        sockets.append(line.machine.socket)
    await asyncio.gather(*(_close(socket, TRY_AGAIN) for socket in sockets))


def _drop_slow_watchers(line: _Line) -> None:
    """Whoever looks on and falls behind what is kept must come anew; the owner sees a gap instead."""
    for viewer in line.viewers:
        if not viewer.is_owner and 0 < viewer.cursor < line.output.first and viewer.feeding is not None:
            viewer.feeding.cancel()


async def _part(viewer: Viewer, code: int, why: str) -> None:
    try:
        async with asyncio.timeout(1):
            await viewer.socket.send_text(json.dumps({"over": why}))
    except GOING:
        pass
    await _close(viewer.socket, code)


async def _close(socket: Socket, code: int) -> None:
    try:
        async with asyncio.timeout(1):
            await socket.close(code)
    except GOING:
        logger.debug("a connection of a terminal was closed already")


def _tell_all(line: _Line, **said: object) -> None:
    for viewer in line.viewers:
        viewer.tell(**said)


def _wake_all(line: _Line) -> None:
    for viewer in line.viewers:
        viewer.news.set()
