"""Turns: of requests that come at the same moment a few begin at once; a crowd holds up nobody who is inside.

What machines ask and tell is urgent: a seat is ready once its machine has heard of it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import cycle, islice

from starlette.types import ASGIApp, Receive, Scope, Send

# To begin takes a request some 0.4 ms: so many hold up everything else for 2 ms, 500 (agents that come back after an
# outage, say) for 0.2 s.
AT_ONCE = 4
# Of these turns in a row the others have the next one.
URGENT = 3
# Every machine sends these all day.
OF_MACHINES = ("/api/commands", "/api/heartbeat", "/api/vm_startup", "/api/logs")


class Line:
    """Those who wait for their turn, each kind in the order in which they came.

    While both kinds wait, three of four turns are the urgent ones': what is begun ends before more is begun. A flood of
    either kind, by whomever, leaves the other its part.
    """

    def __init__(self) -> None:
        self._urgent: deque[asyncio.Future[None]] = deque()
        self._others: deque[asyncio.Future[None]] = deque()
        self._turns = (*[self._urgent] * URGENT, self._others)
        self._in_turn = cycle(self._turns)

    def join(self, *, is_urgent: bool) -> asyncio.Future[None]:
        """A place in it; it is done when it is its turn."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        (self._urgent if is_urgent else self._others).append(place)
        return place

    def call_next(self) -> bool:
        """Gives the next one their turn. Returns whether there was one; whoever has left takes nobody's turn."""
        for places in islice(self._in_turn, len(self._turns)):
            while places:
                place = places.popleft()
                if not place.done():
                    place.set_result(None)
                    return True
        return False


class Turns:
    """ASGI middleware: so many requests begin in one round of the event loop, in the order in which they came."""

    def __init__(self, app: ASGIApp, *, at_once: int = AT_ONCE) -> None:
        self._app, self._at_once = app, at_once
        self._line = Line()
        # In this round; counted anew in the next one.
        self._begun = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets everything through, requests in their turn."""
        if scope["type"] == "http":
            await self._take_turn(is_urgent=scope["path"].startswith(OF_MACHINES))
        await self._app(scope, receive, send)

    async def _take_turn(self, *, is_urgent: bool) -> None:
        if self._begun == 0:
            asyncio.get_running_loop().call_soon(self._begin_round)
        if self._begun < self._at_once:
            self._begun += 1
            return
        await self._line.join(is_urgent=is_urgent)

    def _begin_round(self) -> None:
        self._begun = 0
        while self._begun < self._at_once and self._line.call_next():
            self._begun += 1
        if self._begun:
            asyncio.get_running_loop().call_soon(self._begin_round)
