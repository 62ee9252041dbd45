"""Log shipping: lines wait in a bounded buffer that keeps the beginning and the end, and go out in batches.

Each source has its own numbers and its own room, so that a flood of one takes nothing from another. A line that is
dropped keeps its number: whoever reads the log sees the gap.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from agent.client import READ_S, Client, Refused
from agent.spool import Known, Line, Spool

HEAD, TAIL = 500, 1_500
MAX_LINE, BATCH = 4_000, 500
# A longer line is cut before anybody takes the trouble.
MAX_RAW = 8_000
# As JSON; well below the smallest body limit that a server can have.
BATCH_BYTES = 200_000


@dataclass(frozen=True, slots=True)
class Batch:
    """Lines of one source whose numbers follow each other."""

    source: str
    lines: tuple[Line, ...]

    def as_body(self, stream: str) -> dict[str, object]:
        """What the server gets."""
        return {
            "source": self.source,
            "stream": stream,
            "first_seq": self.lines[0].seq,
            "lines": [line.text for line in self.lines],
            "ats_ms": [line.at_ms for line in self.lines],
            "sent_at_ms": _now_ms(),
        }


@dataclass(slots=True)
class _Source:
    """One source's lines. ``late``: what came in one round beyond all room, as it came: only the last of it counts."""

    head: deque[Line] = field(default_factory=deque)
    tail: deque[Line] = field(default_factory=deque)
    late: deque[Line] = field(default_factory=lambda: deque(maxlen=TAIL))
    taken_in: int = 0
    in_flight: Batch | None = None

    def waiting(self) -> Iterator[Line]:
        """In order."""
        for lines in (self.in_flight.lines if self.in_flight else (), self.head, self.tail):
            yield from lines


class LogBuffer:
    """Lines by source, in order. What does not fit is dropped from the middle, and counted by its numbers."""

    def __init__(self, secrets: tuple[str, ...] = (), *, spool: Path | None = None) -> None:
        self._lock = threading.Lock()
        self.secrets = {secret for secret in secrets if secret}
        self.filled = threading.Event()
        self.shipping = threading.Lock()
        self._spool = Spool(spool) if spool else None
        self._known, lines = self._spool.load() if self._spool else (Known(), [])
        self._sources: dict[str, _Source] = {}
        for line in lines:
            self._keep(self._source(line.source), line)
        if self._spool:
            self._spool.tidy(self._known, lines, is_empty=False)
        if lines:
            self.filled.set()

    def __len__(self) -> int:
        with self._lock:
            return sum(len(list(source.waiting())) + len(source.late) for source in self._sources.values())

    @property
    def stream(self) -> str:
        """What lines are numbered in."""
        return self._known.stream

    def find_mark(self, source: str) -> str | None:
        """Where the reader of this source was at its last line."""
        return self._known.marks.get(source)

    def add(self, source: str, text: str, *, at_ms: int | None = None, mark: str = "") -> None:
        """Adds a line, or several: secrets struck out, each cut at 4,000 characters."""
        at_ms = _now_ms() if at_ms is None else at_ms
        with self._lock:
            for line in text.split("\n"):
                self._add(source, line.rstrip("\r"), at_ms, mark)
        self.filled.set()

    def redacted(self, text: str) -> str:
        """The text with its secrets struck out."""
        for secret in tuple(self.secrets):
            text = text.replace(secret, "[secret]")
        return text

    def take_round(self) -> list[Batch]:
        """The next batch of each source: up to 500 lines that a server takes at once. One without receipt comes again.

        One round is all that is sent in one interval: so much, a flood may cost the server.
        """
        with self._lock:
            self.filled.clear()
            return [batch for name, source in self._sources.items() if (batch := self._take(name, source))]

    def note_receipt(self, batch: Batch) -> None:
        """The server has it, or does not want it."""
        with self._lock:
            source = self._sources[batch.source]
            source.in_flight = None
            if source.head or source.tail:
                self.filled.set()
            if self._spool:
                self._spool.note_receipt(batch.source, batch.lines[-1].seq)
                waiting = (line for each in self._sources.values() for line in each.waiting())
                is_empty = not any(each.in_flight or each.head or each.tail for each in self._sources.values())
                self._spool.tidy(self._known, waiting, is_empty=is_empty)

    def _source(self, name: str) -> _Source:
        return self._sources.setdefault(name, _Source())

    def _add(self, name: str, text: str, at_ms: int, mark: str) -> None:
        source = self._source(name)
        seq = self._known.next_seq.get(name, 1)
        self._known.next_seq[name] = seq + 1
        if len(text) > MAX_RAW:
            text = self.redacted(text)[:MAX_RAW]
        line = Line(name, seq, at_ms, text, mark)
        if source.taken_in < HEAD + TAIL:
            self._take_in(source, line)
        else:
            source.late.append(line)

    def _take_in(self, source: _Source, line: Line) -> None:
        source.taken_in += 1
        if line.mark:
            self._known.marks[line.source] = line.mark
        line = Line(line.source, line.seq, line.at_ms, self.redacted(line.text)[:MAX_LINE], line.mark)
        self._keep(source, line)
        if self._spool:
            self._spool.add(line)

    def _keep(self, source: _Source, line: Line) -> None:
        if not source.tail and len(source.head) < HEAD:
            source.head.append(line)
            return
        if len(source.tail) >= TAIL:
            source.tail.popleft()
        source.tail.append(line)

    def _take(self, name: str, source: _Source) -> Batch | None:
        while source.late:
            self._take_in(source, source.late.popleft())
        source.taken_in = 0
        if source.in_flight is None and not source.head:
            source.head, source.tail = source.tail, source.head
        if source.in_flight is None and source.head:
            source.in_flight = Batch(name, tuple(_following(source.head)))
        return source.in_flight


def _following(lines: deque[Line]) -> Iterator[Line]:
    """Takes away the first lines, as far as their numbers follow each other and one body holds them."""
    count, size, expected = 0, 0, lines[0].seq
    while lines and count < BATCH and lines[0].seq == expected:
        size += len(json.dumps(lines[0].text)) + 20
        if count and size > BATCH_BYTES:
            return
        count, expected = count + 1, expected + 1
        yield lines.popleft()


class BufferHandler(logging.Handler):
    """Ships the agent's own log as well."""

    def __init__(self, buffer: LogBuffer) -> None:
        super().__init__()
        self._buffer = buffer

    def emit(self, record: logging.LogRecord) -> None:
        """Adds the record to the buffer."""
        self._buffer.add("agent", self.format(record))


def ship(buffer: LogBuffer, client: Client, *, timeout_s: float = READ_S) -> None:
    """Sends one round of what waits. Lines that the server refuses are let go.

    Raises:
        ServerAway: the rest still waits.
    """
    # One at a time: two that send would send the same.
    if not buffer.shipping.acquire(timeout=timeout_s):
        return
    try:
        for batch in buffer.take_round():
            with contextlib.suppress(Refused):
                client.post("/api/logs", batch.as_body(buffer.stream), timeout_s=timeout_s)
            buffer.note_receipt(batch)
    finally:
        buffer.shipping.release()


def _now_ms() -> int:
    return int(time.time() * 1_000)
