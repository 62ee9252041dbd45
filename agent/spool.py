"""What waits to be shipped, on disk as well: an agent that is killed goes on where it was, with the same numbers.

The file begins with what is known of each source; then come lines, and receipts for those that the server has.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# From here on the file is written anew: without lines that are shipped, or with those alone that still wait.
TIDY_BYTES, LIMIT_BYTES = 256 * 1024, 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Line:
    """A line with its number in its source, when it was written (ms since 1970), and where its reader was then."""

    source: str
    seq: int
    at_ms: int
    text: str
    mark: str = ""


@dataclass
class Known:
    """The stream that lines are numbered in; for each source the number of the next line and its reader's mark."""

    stream: str = field(default_factory=lambda: secrets.token_hex(8))
    next_seq: dict[str, int] = field(default_factory=dict)
    marks: dict[str, str] = field(default_factory=dict)


class Spool:
    """One file. What cannot be written is shipped all the same; only a kill would lose it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = 0
        self._descriptor: int | None = None

    def load(self) -> tuple[Known, list[Line]]:
        """What is known, and the lines that nobody has a receipt for; of a broken file as much as can be read."""
        known = Known()
        lines: dict[tuple[str, int], Line] = {}
        with contextlib.suppress(OSError):
            for raw in self._path.read_text(encoding="utf-8", errors="replace").splitlines():
                with contextlib.suppress(ValueError, TypeError, KeyError):
                    self._understand(json.loads(raw), known, lines)
        return known, list(lines.values())

    def add(self, line: Line) -> None:
        """Writes a line."""
        self._append([line.source, line.seq, line.at_ms, line.text, line.mark])

    def note_receipt(self, source: str, seq: int) -> None:
        """The server has this source's lines up to this number."""
        self._append([source, seq])

    def tidy(self, known: Known, waiting: Iterable[Line], *, is_empty: bool) -> None:
        """Writes the file anew if it has grown too long."""
        if self._descriptor is not None and self._size < (TIDY_BYTES if is_empty else LIMIT_BYTES):
            return
        entries: list[Any] = [{"stream": known.stream, "next_seq": known.next_seq, "marks": known.marks}]
        entries += ([line.source, line.seq, line.at_ms, line.text, line.mark] for line in waiting)
        content = b"".join(map(_encode, entries))
        with contextlib.suppress(OSError):
            new = self._path.with_suffix(".new")
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
            try:
                os.write(descriptor, content)
                new.replace(self._path)
            except OSError:
                os.close(descriptor)
                raise
            if self._descriptor is not None:
                os.close(self._descriptor)
            self._descriptor, self._size = descriptor, len(content)

    def _append(self, entry: list[Any]) -> None:
        if self._descriptor is None:
            return
        content = _encode(entry)
        with contextlib.suppress(OSError):
            os.write(self._descriptor, content)
        self._size += len(content)

    @staticmethod
    def _understand(entry: Any, known: Known, lines: dict[tuple[str, int], Line]) -> None:
        if isinstance(entry, dict):
            known.stream = str(entry["stream"])
            known.next_seq.update({str(key): int(value) for key, value in entry["next_seq"].items()})
            known.marks.update({str(key): str(value) for key, value in entry["marks"].items()})
        elif len(entry) == 2:
            for key in [key for key in lines if key[0] == entry[0] and key[1] <= int(entry[1])]:
                del lines[key]
        else:
            line = Line(str(entry[0]), int(entry[1]), int(entry[2]), str(entry[3]), str(entry[4]))
            lines[line.source, line.seq] = line
            known.next_seq[line.source] = max(known.next_seq.get(line.source, 1), line.seq + 1)
            if line.mark:
                known.marks[line.source] = line.mark


def _encode(entry: Any) -> bytes:
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"
