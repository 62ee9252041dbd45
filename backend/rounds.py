"""Rounds of the event loop: of what could go on at the same moment only some does in each, so that none takes long."""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import cycle, islice

# Of these turns in a row the others have the next one.
URGENT = 3


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


class Rounds:
    """Lets so many go on in one round of the loop; the others have their turn in the next ones.

    All that is ready is done in the same round, and whatever becomes ready meanwhile waits for its end. While
    ``is_open``, nobody waits.
    """

    is_open = False

    def __init__(self, *, at_once: int) -> None:
        self._at_once = at_once
        self._line = Line()
        # In this round; counted anew in the next one.
        self._gone_on = 0

    async def take_turn(self, *, is_urgent: bool = False) -> None:
        """Returns when it is the caller's turn: at once, unless others went on in this round already."""
        if self.is_open:
            return
        if self._gone_on == 0:
            asyncio.get_running_loop().call_soon(self._begin_round)
        if self._gone_on < self._at_once:
            self._gone_on += 1
            return
        await self._line.join(is_urgent=is_urgent)

    def _begin_round(self) -> None:
        self._gone_on = 0
        while self._gone_on < self._at_once and self._line.call_next():
            self._gone_on += 1
        if self._gone_on:
            asyncio.get_running_loop().call_soon(self._begin_round)
