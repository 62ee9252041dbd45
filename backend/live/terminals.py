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
import secrets
import struct
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from backend.db.engine import Database
from backend.db.notices import BIGGEST_ID, Notice, NoticeListener, send_notice
from backend.errors import Unauthenticated, Unavailable
from backend.live.terminal_lines import (
    GOING,
    NOT_YOURS,
    OVER,
    REPLACED,
    TOO_BIG,
    TRY_AGAIN,
    Line,
    Machine,
    Socket,
    Viewer,
    close,
)
from backend.services.actor import Actor
from backend.services.claim_times import touch_claim
from backend.services.enrolments import AgentIdentity
from backend.services.terminals import Standing, list_standing, record_connected, record_exit

INPUT, RESIZE, ACKNOWLEDGE, SEND_FROM, WATCH = range(5)
MAX_FRAME, MAX_WORD = 64 * 1024, 1_000
# Typed before the machine is connected, in bytes; more is let go.
EARLY_INPUT = 16 * 1024
DOUBT_S, SETTLE_S, USE_S = 5.0, 0.05, 60.0
# For so long browsers wait for their agent before they call it.
CALL_S = 2.0
# What processes say to each other: who has the agent of this terminal? All come anew.
_CALL, _MEET = "terminal_calls", "terminal_meetings"
# What may change who may look.
_DOUBTFUL = {"claims", "seat_browsers", "terminals", "terminal_watches", "admin_sessions", "users", "enrolments"}

logger = logging.getLogger(__name__)


class Terminals:
    """All terminals that are connected to this process. ``run`` is its one task: it sends away who may look no more."""

    def __init__(
        self, db: Database, listener: NoticeListener, authenticate: Callable[[str], Awaitable[AgentIdentity]]
    ) -> None:
        self._db = db
        self._authenticate = authenticate
        self._lines: dict[int, Line] = {}
        self._doubt = asyncio.Event()
        self._leaving: set[asyncio.Task[None]] = set()
        # By which it knows its own calls.
        self._name = 1 + secrets.randbelow(BIGGEST_ID)
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
        line, machine = self._line(terminal_id), Machine(identity, token, socket)
        former, line.machine = line.machine, machine
        try:
            if former is not None:
                await close(former.socket, REPLACED)
            await self._welcome(line, machine)
            await self._hear_machine(line, machine)
        except GOING:
            logger.debug("terminal %s: its agent's connection broke", line.id)
        except Unavailable:
            # The agent comes again and says again what could not be kept.
            await close(socket, TRY_AGAIN)
        finally:
            if line.machine is machine:
                line.machine = None
                self._expect_machine(line)
                line.tell_all(machine=False)
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
        viewer.feeding = asyncio.create_task(line.feed(viewer))
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

    async def _welcome(self, line: Line, machine: Machine) -> None:
        send = machine.socket.send_bytes
        await send(struct.pack(">BQ", SEND_FROM, line.output.last))
        if line.size:
            await send(struct.pack(">BHH", RESIZE, *line.size))
        await self._attend(line)
        if line.early:
            early, line.early = bytes(line.early), bytearray()
            await send(bytes([INPUT]) + early)
        line.tell_all(machine=True)

    async def _attend(self, line: Line) -> None:
        """Tells the agent whether an owner looks, and how far."""
        owners = line.owners
        await line.send(struct.pack(">BB", WATCH, bool(owners)))
        if owners:
            await self._acknowledge(line)

    async def _acknowledge(self, line: Line) -> None:
        seen = max((viewer.seen for viewer in line.owners), default=0)
        await line.send(struct.pack(">BQ", ACKNOWLEDGE, seen))

    async def _hear_machine(self, line: Line, machine: Machine) -> None:
        while True:
            message = await machine.socket.receive()
            if message["type"] != "websocket.receive":
                return
            content, text = message.get("bytes"), message.get("text")
            if content and 8 < len(content) <= MAX_FRAME:
                line.output.add(struct.unpack(">Q", content[:8])[0], content[8:])
                line.wake_all()
                line.drop_slow_watchers()
            elif text and len(text) <= MAX_WORD:
                await self._take_word(line, machine, text)

    async def _take_word(self, line: Line, machine: Machine, text: str) -> None:
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
            line.wake_all()
            await close(machine.socket, OVER)

    async def _hear_viewer(self, line: Line, viewer: Viewer) -> None:
        while True:
            message = await viewer.socket.receive()
            if message["type"] != "websocket.receive" or viewer not in line.viewers:
                return
            content = message.get("bytes") or b""
            if len(content) > MAX_FRAME or len(message.get("text") or "") > MAX_FRAME:
                await close(viewer.socket, TOO_BIG)
                return
            if content[:1] == bytes([INPUT]) and viewer.can_type:
                await self._type(line, content)
            elif content[:1] == bytes([RESIZE]) and len(content) == 5 and viewer.is_owner:
                await self._resize(line, content)
            elif content[:1] == bytes([ACKNOWLEDGE]) and len(content) == 9:
                viewer.seen = max(viewer.seen, min(struct.unpack(">Q", content[1:])[0], viewer.cursor))
                if viewer.is_owner:
                    await self._acknowledge(line)

    async def _type(self, line: Line, frame: bytes) -> None:
        if line.machine is not None:
            await line.send(frame)
        else:
            line.early += frame[1 : 1 + EARLY_INPUT - len(line.early)]
        now = asyncio.get_running_loop().time()
        if now - line.used_at > USE_S:
            line.used_at = now
            try:
                await touch_claim(self._db, line.claim_id)
            except Unavailable:
                line.used_at = float("-inf")

    async def _resize(self, line: Line, frame: bytes) -> None:
        columns, rows = struct.unpack(">HH", frame[1:])
        line.size = (min(max(columns, 2), 1_000), min(max(rows, 1), 1_000))
        await line.send(struct.pack(">BHH", RESIZE, *line.size))
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
                    leaving.append(line.send_away(viewer, code, now.over or "it is not open here any more"))
            if now.over:
                # Whoever may still look sees the output to its end; the agent is told by the code.
                line.over = line.over or now.over
                line.wake_all()
            if machine is not None and (now.over or not await self._is_valid(machine)):
                leaving.append(close(machine.socket, OVER))
        await asyncio.gather(*leaving)

    def _expect_machine(self, line: Line) -> None:
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
            await send_notice(self._db, _CALL, [line.id for line in alone], parents=[self._name])

    def _hear_call(self, notice: Notice) -> None:
        lines = [self._lines[number] for number in notice.ids if number in self._lines]
        ours = [line.id for line in lines if line.machine is not None]
        # An agent that came while our own call for it was on its way has met its browsers: they are not parted again.
        if notice.table == _CALL and ours and self._name not in notice.parents:
            self._begin(self._answer(ours))
        elif notice.table == _MEET:
            for line in lines:
                self._begin(line.let_go())

    async def _answer(self, ours: list[int]) -> None:
        try:
            await send_notice(self._db, _MEET, ours)
        except Unavailable:
            logger.debug("the database is away: whoever calls will call again")

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _is_valid(self, machine: Machine) -> bool:
        try:
            identity = await self._authenticate(machine.token)
        except Unauthenticated:
            return False
        return identity.vm_id == machine.identity.vm_id

    def _line(self, terminal_id: int) -> Line:
        return self._lines.setdefault(terminal_id, Line(terminal_id))

    def _forget(self, line: Line) -> None:
        if not line.viewers and line.machine is None and self._lines.get(line.id) is line:
            del self._lines[line.id]

    def _note(self, notice: Notice) -> None:
        if self._lines and notice.table in _DOUBTFUL:
            self._doubt.set()
        elif notice.table in {_CALL, _MEET}:
            self._hear_call(notice)
