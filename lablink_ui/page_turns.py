"""Turns of pages: so many are made at once; the others wait at the door, where they cost nothing.

Among a thousand that are all half made each one waits for all others, until none is there in time. One after the other
they all come, the last ones late. Whoever is inside already overtakes those who come in: a seat that somebody has
clicked for, an admin who looks what is the matter.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.rounds import Line, Rounds

# Enough that none of them waits for Postgres while the processor rests.
AT_ONCE = 16
_FILES, _ENTRANCE = "/_nicegui", "/join"


class PageTurns:
    """ASGI middleware: makes so many pages at once; entrances are not urgent.

    While anybody stands at the door, ``answers`` of the database wait for no turn of their own: that all get in counts
    for more then than how calm the event loop is.
    """

    def __init__(self, app: ASGIApp, *, answers: Rounds, at_once: int = AT_ONCE) -> None:
        self._app, self._answers, self._free = app, answers, at_once
        self._line, self._standing = Line(), 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets everything through, pages in their turn."""
        if scope["type"] != "http" or scope["method"] != "GET" or scope["path"].startswith(_FILES):
            await self._app(scope, receive, send)
            return
        await self._take_turn(is_urgent=not scope["path"].startswith(_ENTRANCE))
        with ExitStack() as turn:
            turn.callback(self._pass_on)

            async def send_and_leave(message: Message) -> None:
                # It is made; how fast somebody takes it is nobody else's business.
                turn.close()
                await send(message)

            await self._app(scope, receive, send_and_leave)

    async def _take_turn(self, *, is_urgent: bool) -> None:
        if self._free:
            self._free -= 1
            return
        place = self._line.join(is_urgent=is_urgent)
        self._stand(1)
        try:
            await place
        except asyncio.CancelledError:
            # Called and gone in the same moment.
            if not place.cancelled():
                self._pass_on()
            raise
        finally:
            self._stand(-1)

    def _stand(self, more: int) -> None:
        self._standing += more
        self._answers.is_open = self._standing > 0

    def _pass_on(self) -> None:
        if not self._line.call_next():
            self._free += 1
