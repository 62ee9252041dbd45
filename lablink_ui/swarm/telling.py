"""What a worker saw, on its way to whoever counts it: one line of JSON each, in few writes."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from lablink_ui.swarm.http import Failed

FLUSH_S, LOOK_S = 0.2, 0.1


class Teller:
    """Collects what happened. Moments are of the monotonic clock, which all processes of a machine share."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._worst_s = 0.0

    def took(self, what: str, seconds: float) -> None:
        """Something took so long."""
        self._add("took", what, round(1_000 * seconds, 2))

    def count(self, what: str, number: int = 1) -> None:
        """Something happened, or (negative) is over."""
        self._add("count", what, number)

    def failed(self, who: str, exc: Failed) -> None:
        """Something went wrong."""
        self._add("failed", f"{who}: {exc.kind}", str(exc)[:300])

    def sat(self, email: str, hostname: str) -> None:
        """Somebody is shown a machine as theirs."""
        self._add("sat", email, hostname)

    def left(self, email: str, hostname: str) -> None:
        """Somebody begins to give a machine back."""
        self._add("left", email, hostname)

    def sees(self, email: str, status: str, hostname: str) -> None:
        """What somebody's page says at the end."""
        self._add("sees", email, status, hostname)

    def reached(self, state: str) -> None:
        """All of this worker have got so far."""
        self._add("reached", state)

    async def run(self) -> None:
        """Writes it out, and measures by how much this process itself is late, until cancelled; then the rest."""
        try:
            due = time.monotonic() + LOOK_S
            last = 0.0
            while True:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                now = time.monotonic()
                self._worst_s = max(self._worst_s, now - due)
                due = now + LOOK_S
                if now - last > FLUSH_S:
                    last = now
                    self.flush()
        finally:
            self.flush()

    def flush(self) -> None:
        """Writes what there is."""
        if self._worst_s:
            self._add("late", round(1_000 * self._worst_s, 1))
            self._worst_s = 0.0
        if self._lines:
            print("\n".join(self._lines), flush=True)
            self._lines.clear()

    def _add(self, *words: Any) -> None:
        self._lines.append(json.dumps([round(time.monotonic(), 4), *words]))
