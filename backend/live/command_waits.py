"""Long polls: agents that wait here are woken by the notice of a command for their VM."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from backend.db.engine import Database
from backend.db.notices import Notice, NoticeListener
from backend.services.commands import CommandView, list_commands_for_agent

MAX_WAIT_S = 55


class CommandWaits:
    """Who waits for commands in this process."""

    def __init__(self, db: Database, listener: NoticeListener) -> None:
        self._db = db
        self._waiting: dict[int, set[asyncio.Event]] = defaultdict(set)
        self._is_closed = False
        listener.subscribe(self._note, on_gap=self.wake_all)

    async def wait(self, vm_id: int, *, wait_s: float) -> list[CommandView]:
        """The open commands of this VM: at once if there are any, else when one comes, else none after ``wait_s``."""
        woken = asyncio.Event()
        # Registered before the look, so that a command between look and wait is not slept through.
        self._waiting[vm_id].add(woken)
        try:
            commands = await list_commands_for_agent(self._db, vm_id)
            if commands or wait_s <= 0 or self._is_closed:
                return commands
            try:
                async with asyncio.timeout(min(wait_s, MAX_WAIT_S)):
                    await woken.wait()
            except TimeoutError:
                return []
            return await list_commands_for_agent(self._db, vm_id)
        finally:
            self._waiting[vm_id].discard(woken)
            if not self._waiting[vm_id]:
                del self._waiting[vm_id]

    def wake_all(self) -> None:
        """Lets everybody look again: after a gap a notice may have been lost."""
        for waiting in self._waiting.values():
            for woken in waiting:
                woken.set()

    def close(self) -> None:
        """Lets everybody go, so that a stopping server need not wait for their polls to end."""
        self._is_closed = True
        self.wake_all()

    def _note(self, notice: Notice) -> None:
        if notice.table == "commands":
            for vm_id in notice.parents:
                for woken in self._waiting.get(vm_id, ()):
                    woken.set()
