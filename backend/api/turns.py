"""Turns: of requests that come at the same moment a few begin at once; a crowd holds up nobody who is inside.

What machines ask and tell is urgent: a seat is ready once its machine has heard of it.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from backend.rounds import Rounds

# To begin takes a request some 0.4 ms: so many hold up everything else for 2 ms, 500 (agents that come back after an
# outage, say) for 0.2 s.
AT_ONCE = 4
# Every machine sends these all day.
OF_MACHINES = ("/api/commands", "/api/heartbeat", "/api/vm_startup", "/api/logs")


class Turns:
    """ASGI middleware: so many requests begin in one round of the event loop, in the order in which they came."""

    def __init__(self, app: ASGIApp, *, at_once: int = AT_ONCE) -> None:
        self._app, self._rounds = app, Rounds(at_once=at_once)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets everything through, requests in their turn."""
        if scope["type"] == "http":
            await self._rounds.take_turn(is_urgent=scope["path"].startswith(OF_MACHINES))
        await self._app(scope, receive, send)
