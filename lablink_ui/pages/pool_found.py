"""The pool that a page of the console is about."""

from __future__ import annotations

from backend.errors import NotFound
from backend.services.pools import get_pool
from backend.services.views import PoolView
from lablink_ui.frame import admin_frame
from lablink_ui.parts import link_button
from lablink_ui.visits import Visit


async def find_pool(visit: Visit, name: str) -> PoolView | None:
    """The pool of this name; None where there is none, which the page has said then."""
    try:
        return await get_pool(visit.house.db, name)
    except NotFound as exc:
        with admin_frame("No such pool", active="pools", user=visit.admin.name, subtitle=exc.message) as frame:
            link_button("All pools", "/admin/pools", classes="primary")
            await visit.follow(frame)
        return None
