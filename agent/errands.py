"""Errands: commands that take long, done beside the others, so that none of those has to wait."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Errands:
    """Those that are under way, by the id of their command."""

    def __init__(self) -> None:
        self._underway: set[int] = set()
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        with self._lock:
            return bool(self._underway)

    def begin(self, command_id: int, work: Callable[[], None]) -> None:
        """Begins one; one that is under way is not begun again, however often its command is delivered."""
        with self._lock:
            if command_id in self._underway:
                return
            self._underway.add(command_id)
        threading.Thread(target=self._run, args=(command_id, work), daemon=True).start()

    def _run(self, command_id: int, work: Callable[[], None]) -> None:
        try:
            work()
        finally:
            with self._lock:
                self._underway.discard(command_id)
