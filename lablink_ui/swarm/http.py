"""A lean HTTP client for thousands: connections kept alive, cookies kept, nothing else that costs."""

from __future__ import annotations

import asyncio
import functools
import json
import ssl
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import httptools

from lablink_ui.swarm.target import Target

ANSWER_S = 60.0
USER_AGENT = "lablink-swarm"


class Failed(Exception):
    """Something went wrong for a machine or a person. ``kind`` is counted; the message says more."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(detail or kind)
        self.kind = kind


@dataclass(slots=True)
class Answer:
    """What was answered; ``headers`` by their name in lower case."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cookies: list[str] = field(default_factory=list)
    body: bytes = b""

    def json(self) -> Any:
        """The content, if it is JSON; else nothing in a dict."""
        try:
            return json.loads(self.content())
        except ValueError:
            return {}

    def content(self) -> bytes:
        """The body as it was before its compression."""
        return zlib.decompress(self.body, 31) if self.headers.get("content-encoding") == "gzip" else self.body

    def problem(self) -> str:
        """What the server says is wrong."""
        answer = self.json()
        error = answer.get("error") if isinstance(answer, dict) else None
        said = error.get("message") if isinstance(error, dict) else None
        return str(said or self.content()[:120].decode(errors="replace"))


class Client:
    """One browser or one agent: its cookies, its headers, its connections."""

    def __init__(self, target: Target, headers: Mapping[str, str] | None = None) -> None:
        self.target, self.tls = target, _make_tls() if target.is_secure else None
        self.cookies: dict[str, str] = {}
        self._headers = {"Host": target.netloc, "User-Agent": USER_AGENT, **(headers or {})}
        self._idle: list[_Connection] = []

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: Mapping[str, str] | None = None,
        within_s: float = ANSWER_S,
    ) -> Answer:
        """Asks once. ``body``: bytes as they are, anything else as JSON.

        Raises:
            Failed: no connection, or no answer.
        """
        content = self._request(method, path, body, headers or {})
        while True:
            is_fresh = not self._idle
            try:
                connection = self._idle.pop() if self._idle else await _connect(self.target, self.tls, within_s)
            except (OSError, TimeoutError, ssl.SSLError) as exc:
                raise Failed(
                    "no connection", f"{method} {path.partition('?')[0]}: {exc or type(exc).__name__}"
                ) from None
            try:
                answer = await connection.ask(content, within_s)
            except Failed as exc:
                connection.close()
                # The server may close an idle connection at the very moment at which it is used again.
                if exc.kind == "connection closed" and not is_fresh:
                    continue
                raise Failed(exc.kind, f"{method} {path.partition('?')[0]}: {exc}") from None
            except BaseException:
                connection.close()
                raise
            break
        if connection.is_open:
            self._idle.append(connection)
        for cookie in answer.cookies:
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name.strip()] = value.strip()
        return answer

    def cookie_header(self) -> str:
        """What a browser sends as Cookie."""
        return "; ".join(f"{name}={value}" for name, value in self.cookies.items())

    def close(self) -> None:
        """Ends its connections."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    def _request(self, method: str, path: str, body: object, headers: Mapping[str, str]) -> bytes:
        all_headers = {**self._headers, **headers}
        content = b""
        if isinstance(body, bytes):
            content = body
        elif body is not None:
            content = json.dumps(body).encode()
            all_headers["Content-Type"] = "application/json"
        if self.cookies:
            all_headers["Cookie"] = self.cookie_header()
        if content or method != "GET":
            all_headers["Content-Length"] = str(len(content))
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in all_headers.items()), "", ""]
        return "\r\n".join(lines).encode() + content


class _Connection(asyncio.Protocol):
    """One connection; one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[Answer] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer = Answer()
        self._parts: list[bytes] = []
        self.is_open = False

    async def ask(self, content: bytes, within_s: float) -> Answer:
        if not self.is_open or self._transport is None:
            raise Failed("connection closed", "the server closed the connection")
        loop = asyncio.get_running_loop()
        self._waiting = loop.create_future()
        self._transport.write(content)
        # A timer, not a wait_for: that costs a task for every request.
        timer = loop.call_later(within_s, self._give_up, "no answer", f"no answer within {within_s:.0f} s")
        try:
            return await self._waiting
        finally:
            timer.cancel()
            self._waiting = None

    def close(self) -> None:
        self.is_open = False
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is one by its deeds alone.
        self._transport, self.is_open = cast("asyncio.Transport", transport), True

    def connection_lost(self, _exc: Exception | None) -> None:
        self.is_open = False
        self._give_up("connection closed", "the server closed the connection")

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            self._give_up("no HTTP", str(exc))
            self.close()

    def on_message_begin(self) -> None:
        self._answer, self._parts = Answer(), []

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.decode("latin-1").lower()
        if key == "set-cookie":
            self._answer.cookies.append(value.decode("latin-1"))
        else:
            self._answer.headers[key] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        answer = self._answer
        answer.status, answer.body = self._parser.get_status_code(), b"".join(self._parts)
        if not self._parser.should_keep_alive():
            self.close()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(answer)

    def _give_up(self, kind: str, why: str) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(Failed(kind, why))


@functools.cache
def _make_tls() -> ssl.SSLContext:
    return ssl.create_default_context()


async def _connect(target: Target, tls: ssl.SSLContext | None, within_s: float) -> _Connection:
    connecting = asyncio.get_running_loop().create_connection(
        _Connection, target.addresses[0], target.port, ssl=tls, server_hostname=target.host if tls else None
    )
    _, connection = await asyncio.wait_for(connecting, within_s)
    return connection
