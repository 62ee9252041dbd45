"""Open pages of admins: each ends with the session that opened it, and starts over when its user's role changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from backend.db.engine import Database
from backend.errors import Unavailable
from backend.live.changes import ChangeSet
from backend.live.read_model import ReadModel
from backend.services.admin_sessions import find_roles
from backend.services.sign_in import AdminIdentity
from backend.states import Role

RETRY_S = 0.5


@dataclass(eq=False)
class _Page:
    session_id: int
    role: Role
    on_end: Callable[[Role | None], None]


class AdminPages:
    """Looks after all open pages with one query whenever sessions or users changed. ``run`` is its one task."""

    def __init__(self, db: Database, live: ReadModel) -> None:
        self._db = db
        self._pages: set[_Page] = set()
        self._doubt = asyncio.Event()
        live.subscribe(self._note)

    def watch(self, admin: AdminIdentity, on_end: Callable[[Role | None], None]) -> Callable[[], None]:
        """Calls ``on_end`` with the role once it is another (None: the session has ended). Returns what ends this."""
        page = _Page(admin.session_id or 0, admin.role, on_end)
        self._pages.add(page)
        # It may have ended between the drawing of the page and now.
        self._doubt.set()
        return lambda: self._pages.discard(page)

    async def run(self) -> None:
        """Looks whenever there is doubt, until cancelled."""
        while True:
            await self._doubt.wait()
            self._doubt.clear()
            try:
                await self._look()
            except Unavailable:
                self._doubt.set()
                await asyncio.sleep(RETRY_S)

    async def _look(self) -> None:
        pages = tuple(self._pages)
        if not pages:
            return
        roles = await find_roles(self._db, {page.session_id for page in pages})
        for page in pages:
            role = roles.get(page.session_id)
            if role is not page.role and page in self._pages:
                self._pages.discard(page)
                page.on_end(role)

    def _note(self, changes: ChangeSet) -> None:
        if changes.has_sessions or changes.touches("users"):
            self._doubt.set()
