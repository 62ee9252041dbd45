"""Log shipping: lines wait in a bounded buffer that keeps the beginning and the end, and go out in batches."""

from __future__ import annotations

import json
import logging
import threading
from collections import deque

from agent.client import READ_S, Client, Refused, ServerAway

HEAD, TAIL = 500, 1_500
MAX_LINE, BATCH = 4_000, 500
# As JSON; well below the smallest body limit that a server can have.
BATCH_BYTES = 200_000


class LogBuffer:
    """Lines by source, in order. When the server is away for long, the middle is dropped and the gap is told."""

    def __init__(self, secrets: tuple[str, ...] = ()) -> None:
        self._head: deque[tuple[str, str]] = deque()
        self._tail: deque[tuple[str, str]] = deque()
        self._dropped = 0
        self._lock = threading.Lock()
        self.secrets = {secret for secret in secrets if secret}
        self.filled = threading.Event()

    def __len__(self) -> int:
        with self._lock:
            return len(self._head) + len(self._tail)

    def add(self, source: str, text: str) -> None:
        """Adds a line, or several: secrets struck out, each cut at 4,000 characters."""
        text = self.redacted(text)
        with self._lock:
            for line in text.splitlines() or [""]:
                self._append(source, line[:MAX_LINE])
        self.filled.set()

    def redacted(self, text: str) -> str:
        """The text with its secrets struck out."""
        for secret in tuple(self.secrets):
            text = text.replace(secret, "[secret]")
        return text

    def take(self) -> tuple[str, list[str]] | None:
        """The next batch: up to 500 lines of one source that a server takes at once. None if there is nothing."""
        with self._lock:
            if not self._head and self._dropped:
                self._head.append(("agent", f"[{self._dropped} lines were dropped here while the server was away]"))
                self._dropped = 0
            if not self._head:
                self._head, self._tail = self._tail, self._head
            if not self._head:
                self.filled.clear()
                return None
            source, size = self._head[0][0], 0
            lines: list[str] = []
            while self._head and self._head[0][0] == source and len(lines) < BATCH:
                size += len(json.dumps(self._head[0][1])) + 2
                if lines and size > BATCH_BYTES:
                    break
                lines.append(self._head.popleft()[1])
            return source, lines

    def put_back(self, batch: tuple[str, list[str]]) -> None:
        """Returns a batch that could not be sent to the front."""
        with self._lock:
            self._head.extendleft((batch[0], line) for line in reversed(batch[1]))
        self.filled.set()

    def _append(self, source: str, line: str) -> None:
        if not self._tail and not self._dropped and len(self._head) < HEAD:
            self._head.append((source, line))
            return
        if len(self._tail) >= TAIL:
            self._tail.popleft()
            self._dropped += 1
        self._tail.append((source, line))


class BufferHandler(logging.Handler):
    """Ships the agent's own log as well."""

    def __init__(self, buffer: LogBuffer) -> None:
        super().__init__()
        self._buffer = buffer

    def emit(self, record: logging.LogRecord) -> None:
        """Adds the record to the buffer."""
        self._buffer.add("agent", self.format(record))


def ship(buffer: LogBuffer, client: Client, *, timeout_s: float = READ_S) -> None:
    """Sends all that waits. Lines that the server refuses are let go.

    Raises:
        ServerAway: the rest still waits.
    """
    while (batch := buffer.take()) is not None:
        try:
            client.post("/api/logs", {"source": batch[0], "lines": batch[1]}, timeout_s=timeout_s)
        except Refused:
            continue
        except ServerAway:
            buffer.put_back(batch)
            raise
