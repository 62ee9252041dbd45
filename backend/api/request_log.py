"""Each request has an id, which its answer tells, and a span; and those that may change something are logged."""

from __future__ import annotations

import logging
import time
from contextlib import AbstractContextManager

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.api.turns import OF_MACHINES
from backend.request_ids import begin_request
from backend.spans import Span, nothing, span

HEADER = b"x-request-id"
_SAFE = {"GET", "HEAD", "OPTIONS"}
# What machines, balancers and every page's opening ask for all day; a command's result is not among it.
_NO_SPANS = ("/api/heartbeat", "/api/logs", "/healthz", "/readyz", "/metrics", "/_nicegui", "/assets")

logger = logging.getLogger("lablink.requests")


class RequestLog:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets everything through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == HEADER), b"")
        request_id = begin_request(given.decode("latin-1")).encode()
        began, status = time.perf_counter(), 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (HEADER, request_id)]
            await send(message)

        with _span(scope) as begun:
            try:
                await self._app(scope, receive, send_with_id)
            finally:
                _log(scope, status, time.perf_counter() - began)
                name = f"{scope['method'][:10]} {_place(scope)}"
                begun.note({"http.response.status_code": status}, name=name, has_failed=status >= 500)


def _log(scope: Scope, status: int, seconds: float) -> None:
    is_news = scope["method"] not in _SAFE and not scope["path"].startswith(OF_MACHINES)
    level = logging.INFO if is_news else logging.DEBUG
    if logger.isEnabledFor(level):
        logger.log(level, "%s %s %d in %.0f ms", scope["method"][:10], _place(scope), status, seconds * 1000)


def _span(scope: Scope) -> AbstractContextManager[Span]:
    if scope["path"] == "/api/commands" or scope["path"].startswith(_NO_SPANS):
        return nothing
    return span(scope["method"][:10], {"http.request.method": scope["method"][:10]}, is_request=True)


def _place(scope: Scope) -> str:
    """The template: a path may hold what opens a seat."""
    return getattr(scope.get("route"), "path", None) or "(no route)"
