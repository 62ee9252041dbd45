"""A limit on bodies, applied before anything reads them."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.api.errors import error_response

DRAINED_BYTES = 64_000_000


class BodyLimit:
    """ASGI middleware: a body above ``max_bytes`` gets 413, whether it announced its length or not."""

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets the request through, or answers it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if not announced.isdigit() or int(announced) > self._max_bytes:
            await self._refuse(scope, receive, send)
            return
        is_unknown = scope["method"] in {"POST", "PUT", "PATCH", "DELETE"} and announced == b"0"
        body, more, held = b"", is_unknown, is_unknown
        # No announced length: read as far as the limit allows, then play it back.
        while more:
            message = await receive()
            if message["type"] != "http.request":
                # Whoever left in the middle has said nothing.
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._max_bytes:
                await self._refuse(scope, receive, send)
                return

        async def replay() -> Message:
            nonlocal held
            if not held:
                return await receive()
            held = False
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Read to its end all the same, else most clients never see the answer; but not without end.
        seen, more = 0, True
        while more and seen < DRAINED_BYTES:
            message = await receive()
            seen += len(message.get("body", b""))
            more = message["type"] == "http.request" and message.get("more_body", False)
        response = error_response(
            413, "too_large", f"The body is larger than {self._max_bytes:,} bytes.", headers={"Connection": "close"}
        )
        await response(scope, receive, send)
