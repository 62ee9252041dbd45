"""Limits on connections, beneath everything else: how many, how large a request's head, how long until it is here."""

from __future__ import annotations

import asyncio
import resource
from typing import ClassVar

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from backend.api.errors import error_response

MAX_HEAD_BYTES = 64_000
# A connection closed over bytes still unread is reset, and the reset can overtake the answer (RFC 9112, 9.6).
LINGER_S = 1.0
# Besides connections: files, the database, children.
SPARE_FILES = 1_000


def limited_protocol(*, request_timeout_s: float, max_connections: int) -> type[asyncio.Protocol]:
    """Uvicorn's HTTP with these limits. Also lifts the process's limit of open files as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max_connections + SPARE_FILES
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))

    class Limited(_LimitedProtocol):
        pass

    Limited.request_timeout_s, Limited.max_connections = request_timeout_s, max_connections
    return Limited


class _LimitedProtocol(HttpToolsProtocol):
    request_timeout_s: ClassVar[float]
    max_connections: ClassVar[int]
    _deadline: asyncio.TimerHandle | None = None
    _in_head = True
    _head_bytes = 0
    _is_ended = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            self.transport.write(_empty_answer(b"503 Service Unavailable"))
            self.transport.close()
            return
        self._start_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_ended:
            return
        # The parser itself would collect a head without end.
        self._head_bytes += len(data)
        super().data_received(data)
        if not self._in_head:
            self._head_bytes = 0
        elif self._head_bytes > MAX_HEAD_BYTES:
            self._end(b"431 Request Header Fields Too Large")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        if self._deadline is None:
            self._start_deadline()

    def on_headers_complete(self) -> None:
        self._in_head = False
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD_BYTES:
            self.app = _refuse_head
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._stop_deadline()
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        self._stop_deadline()
        super().handle_websocket_upgrade()

    def _start_deadline(self) -> None:
        self._deadline = self.loop.call_later(self.request_timeout_s, self._on_late)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _on_late(self) -> None:
        """The request is still not whole: whoever sends a byte a minute must not hold a place for ever."""
        self._deadline = None
        self._end(b"408 Request Timeout")

    def _end(self, status: bytes) -> None:
        """Answers in the app's place, and reads past what is still coming for a moment."""
        if self._is_ended or self.transport.is_closing():
            return
        self._is_ended = True
        self._stop_deadline()
        if not self._take_over():
            self.transport.close()
            return
        self.transport.write(_empty_answer(status))
        self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.close)

    def _take_over(self) -> bool:
        """Tells the app that nobody waits for its answer. False where that has begun already: then it is not ours."""
        if self.cycle is None or self.cycle.response_complete:
            return True
        if self._in_head or self.cycle.response_started:
            return False
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        return True


def _empty_answer(status: bytes) -> bytes:
    return b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


async def _refuse_head(scope: Scope, receive: Receive, send: Send) -> None:
    message = f"The request's headers are larger than {MAX_HEAD_BYTES:,} bytes."
    await error_response(431, "header_too_large", message, headers={"Connection": "close"})(scope, receive, send)
