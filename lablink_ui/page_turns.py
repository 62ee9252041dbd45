"""Turns of pages: so many are made at once; the others wait at the door, where they cost nothing.

Among a thousand that are all half made each one waits for all others, until none is there in time. One after the other
they all come, the last ones late.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Enough that none of them waits for Postgres while the processor rests.
AT_ONCE = 16
_FILES = "/_nicegui"


class PageTurns:
    """ASGI middleware: makes so many pages at once, in the order in which they were asked for."""

    def __init__(self, app: ASGIApp, *, at_once: int = AT_ONCE) -> None:
        self._app, self._turns = app, asyncio.Semaphore(at_once)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets everything through, pages in their turn."""
        if scope["type"] != "http" or scope["method"] != "GET" or scope["path"].startswith(_FILES):
            await self._app(scope, receive, send)
            return
        await self._turns.acquire()
        with ExitStack() as turn:
            turn.callback(self._turns.release)

            async def send_and_leave(message: Message) -> None:
                # It is made; how fast somebody takes it is nobody else's business.
                turn.close()
                await send(message)

            await self._app(scope, receive, send_and_leave)
