"""Turns: of requests that come at the same moment a few begin at once; a crowd holds up nobody who is inside."""

from __future__ import annotations

import asyncio
from collections import deque

from starlette.types import ASGIApp, Receive, Scope, Send

# To begin takes a request some 0.4 ms: so many hold up everything else for 2 ms, 500 (agents that come back after an
# outage, say) for 0.2 s.
AT_ONCE = 4


class Turns:
    """ASGI middleware: so many requests begin in one round of the event loop, in the order in which they came."""

    def __init__(self, app: ASGIApp, *, at_once: int = AT_ONCE) -> None:
        self._app, self._at_once = app, at_once
        self._waiting: deque[asyncio.Future[None]] = deque()
        # In this round; counted anew in the next one.
        self._begun = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets everything through, requests in their turn."""
        if scope["type"] == "http":
            await self._take_turn()
        await self._app(scope, receive, send)

    async def _take_turn(self) -> None:
        loop = asyncio.get_running_loop()
        if self._begun == 0:
            loop.call_soon(self._begin_round)
        if self._begun < self._at_once:
            self._begun += 1
            return
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _begin_round(self) -> None:
        self._begun = 0
        while self._waiting and self._begun < self._at_once:
            turn = self._waiting.popleft()
            # Whoever has left in the meantime takes nobody's turn.
            if not turn.done():
                turn.set_result(None)
                self._begun += 1
        if self._begun:
            asyncio.get_running_loop().call_soon(self._begin_round)
