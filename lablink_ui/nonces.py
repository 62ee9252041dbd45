"""Pages carry scripts of NiceGUI's template inside: each gets a nonce, so that no other inline script can run."""

from __future__ import annotations

import secrets

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.api.headers import page_policy


class ScriptNonces:
    """ASGI middleware for the app that draws pages; whatever compresses them must stand outside of it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Holds a page back until it is whole, then sends it with its nonce and policy."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start: Message | None = None
        page = bytearray()

        async def send_with_nonce(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and _is_page(message):
                start = message
                return
            if start is None:
                await send(message)
                return
            page.extend(message.get("body", b""))
            if not message.get("more_body", False):
                await _send_page(bytes(page), start, send)

        await self._app(scope, receive, send_with_nonce)


def _is_page(start: Message) -> bool:
    return MutableHeaders(scope=start).get("content-type", "").startswith("text/html")


async def _send_page(page: bytes, start: Message, send: Send) -> None:
    nonce = secrets.token_urlsafe(16)
    body = page.replace(b"<script", f'<script nonce="{nonce}"'.encode())
    headers = MutableHeaders(scope=start)
    headers["Content-Security-Policy"] = page_policy(nonce)
    headers["Content-Length"] = str(len(body))
    await send(start)
    await send({"type": "http.response.body", "body": body})
