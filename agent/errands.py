"""Errands: commands that take long, done beside the others, so that none of those has to wait."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Errands:
    """Those that are under way, by the id of their command."""

    def __init__(self) -> None:
        self._underway: dict[int, str] = {}
        self._changed = threading.Condition()

    def __bool__(self) -> bool:
        with self._changed:
            return bool(self._underway)

    def begin(self, command_id: int, kind: str, work: Callable[[], None]) -> None:
        """Begins one; one that is under way is not begun again, however often its command is delivered."""
        with self._changed:
            if command_id in self._underway:
                return
            self._underway[command_id] = kind
        threading.Thread(target=self._run, args=(command_id, work), daemon=True).start()

    def are_underway(self, kind: str) -> bool:
        """Whether one of this kind is."""
        with self._changed:
            return kind in self._underway.values()

    def wait(self, within_s: float) -> None:
        """Waits until none is under way, or for so long."""
        with self._changed:
            self._changed.wait_for(lambda: not self._underway, within_s)

    def _run(self, command_id: int, work: Callable[[], None]) -> None:
        try:
            work()
        finally:
            with self._changed:
                del self._underway[command_id]
                self._changed.notify_all()
