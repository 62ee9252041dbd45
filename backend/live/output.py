"""The newest part of a terminal's output, by offset: enough to go on after an interruption."""

from __future__ import annotations

# Not less than an agent keeps, so that nothing it could send again is missing here.
KEPT = 320 * 1024


class Output:
    """Bytes from ``first`` up to ``last``, counted from the beginning of the terminal."""

    def __init__(self) -> None:
        self.first = 0
        self._bytes = bytearray()

    @property
    def last(self) -> int:
        """The offset of the byte that comes next."""
        return self.first + len(self._bytes)

    def add(self, offset: int, content: bytes) -> None:
        """Adds what an agent sent: what is known already is skipped; after a gap only the new part is kept."""
        if not self._bytes or offset > self.last:
            self.first = max(offset, self.last)
            self._bytes.clear()
        self._bytes += content[max(0, self.last - offset) :]
        surplus = len(self._bytes) - KEPT
        if surplus > 0:
            del self._bytes[:surplus]
            self.first += surplus

    def read(self, offset: int, limit: int) -> bytes:
        """At most ``limit`` bytes from ``offset``, which is not before ``first``."""
        start = offset - self.first
        return bytes(self._bytes[start : start + limit])
