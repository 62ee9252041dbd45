"""Compression: a file that a whole class asks for in the same minute is compressed once, and not on their time."""

from __future__ import annotations

from posixpath import normpath

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Everybody waits while a page is compressed: 9 takes a fifth to twice as long, for 1 % less at most.
LEVEL = 6
# A page has some forty files, the largest of 4.6 MB before it is compressed.
MAX_FILES, MAX_FILE_BYTES = 200, 2_000_000


class Compression(GZipMiddleware):
    """ASGI middleware: like Starlette's, but it keeps the files that say of themselves that they never change."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(app, compresslevel=LEVEL)
        self._kept: dict[str, tuple[Message, bytes]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers from what is kept, or compresses what the app answers."""
        if scope["type"] != "http" or scope["path"].startswith("/api/"):
            # Answers to programs are small and many.
            await self.app(scope, receive, send)
            return
        if not _asks_for_file(scope):
            await super().__call__(scope, receive, send)
        elif kept := self._kept.get(scope["path"]):
            start, body = kept
            # Others add headers of their own request's.
            await send({**start, "headers": list(start["headers"])})
            await send({"type": "http.response.body", "body": body})
        else:
            await super().__call__(scope, receive, self._keeping(scope["path"], send))

    def _keeping(self, path: str, send: Send) -> Send:
        start: Message | None = None
        body = bytearray()

        async def send_and_keep(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = {**message, "headers": list(message["headers"])} if _is_for_ever(message) else None
            elif start is not None and len(body) <= MAX_FILE_BYTES:
                body.extend(message.get("body", b""))
                if not message.get("more_body") and len(self._kept) < MAX_FILES and len(body) <= MAX_FILE_BYTES:
                    MutableHeaders(raw=start["headers"])["content-length"] = str(len(body))
                    self._kept[path] = start, bytes(body)
            await send(message)

        return send_and_keep


def _asks_for_file(scope: Scope) -> bool:
    """Whether the request is for a whole file, compressed, by its one name: a query may ask for anything, and with dots
    in its path one file has names enough to fill what there is room for.
    """
    if scope["method"] != "GET" or scope["query_string"] or normpath(scope["path"]) != scope["path"]:
        return False
    headers = Headers(scope=scope)
    is_partial = any(name in headers for name in ("range", "if-none-match", "if-modified-since"))
    return "gzip" in headers.get("accept-encoding", "") and not is_partial


def _is_for_ever(start: Message) -> bool:
    headers = Headers(raw=start["headers"])
    # Compressed or not: a font is so by itself, and reading it anew costs three times what all else does.
    return start["status"] == 200 and "immutable" in headers.get("cache-control", "")
