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
        woken, until = asyncio.Event(), asyncio.get_running_loop().time() + min(wait_s, MAX_WAIT_S)
        # Registered before the look, so that a command between look and wait is not slept through.
        self._waiting[vm_id].add(woken)
        try:
            while not (commands := await list_commands_for_agent(self._db, vm_id)):
                if self._is_closed or not await _is_set(woken, until):
                    break
                # A command's end is told like its beginning: that is no reason to send the agent away.
                woken.clear()
            return commands
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


async def _is_set(event: asyncio.Event, until: float) -> bool:
    """Waits for it. Whether it is set before a moment of the loop's clock."""
    try:
        async with asyncio.timeout_at(until):
            return await event.wait()
    except TimeoutError:
        return False
