"""The pages' socket is for our own pages: the library behind it accepts any origin, so we look ourselves."""

from __future__ import annotations

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from backend.api.cookies import is_same_origin
from backend.api.errors import error_response


class OwnOrigin:
    """ASGI middleware: what comes to ``path`` from another site's page gets 403, over HTTP and as a websocket."""

    def __init__(self, app: ASGIApp, *, path: str) -> None:
        self._app = app
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets the connection through, or refuses it. Without an Origin it is no browser's, or our own page's GET."""
        if scope["type"] in {"http", "websocket"} and scope["path"].startswith(self._path):
            connection = HTTPConnection(scope)
            if "origin" in connection.headers and not is_same_origin(connection):
                await _refuse(scope, receive, send)
                return
        await self._app(scope, receive, send)


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        # Before it was accepted: the server answers the handshake with 403.
        await receive()
        await send({"type": "websocket.close", "code": 1008})
        return
    response = error_response(403, "wrong_origin", "This is for pages of this server only.")
    await response(scope, receive, send)
