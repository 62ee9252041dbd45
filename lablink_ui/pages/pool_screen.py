"""The lecture hall's screen: how to get in, large enough for the last row, and how many machines are left."""

from __future__ import annotations

import segno
from fastapi import Request
from fastapi.responses import Response
from nicegui import ui

from backend.errors import NotFound
from backend.live.changes import ChangeSet, Snapshot
from backend.services.join_codes import JoinCodeView, find_code
from backend.services.pools import get_pool
from backend.services.views import PoolView
from backend.states import Access, Role
from lablink_ui.frame import page_at, public_frame
from lablink_ui.parts import Text, button, link_button, tag, text
from lablink_ui.visits import Reader, Visit, find_visit, to_login
from lablink_ui.words import sentence

_ASKS = {
    Access.OPEN: "Open this address:",
    Access.CODE: "Open this address:",
    Access.ROSTER: "Open the personal link that was sent to you.",
    Access.OIDC: "Open this address and sign in with your organisation:",
}
_FULL_SCREEN = (
    "() => document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen()"
)


@page_at("/admin/pools/{name}/screen")
async def screen(request: Request, name: str) -> Response | None:
    """What a projector shows at the start of a workshop."""
    visit = await find_visit(request)
    if visit is None:
        return to_login(request)
    try:
        pool = await get_pool(visit.house.db, name)
    except NotFound as exc:
        with public_frame("No such pool") as frame:
            frame.subtitle.say(exc.message)
            link_button("All pools", "/admin/pools", classes="primary")
            await visit.follow(frame)
        return None
    with public_frame(f"Workshop {name}", wide=True) as frame:
        hall = _Hall(visit, pool)
        with tag("div", "row"):
            button("Full screen", testid="screen-full").on("click", js_handler=_FULL_SCREEN)
            link_button("Back to the pool", f"/admin/pools/{name}")
        await visit.follow(frame, start=hall.show, on_changes=hall.show)
    return None


class _Hall:
    """Everything on the screen that changes."""

    def __init__(self, visit: Visit, pool: PoolView) -> None:
        self._visit, self._pool = visit, pool
        self._access, self._shown = pool.access, ""
        with tag("div", "hall"):
            self._picture = tag("div", "qr", role="img", aria_label="The address as a QR code")
            with tag("div", "stack", role="status"):
                self._asks = text("p", "", "ask")
                self._link = text("p", "", "link", data_testid="screen-link")
                with tag("div", "stack tight") as self._code_part:
                    tag("p", "ask", "The join code is")
                    self._code = text("output", "", "hall-code", data_testid="screen-code")
                self._trouble = text("p", "", "note warn", data_testid="screen-trouble")
        with tag("dl", "hall-counts", aria_live="polite"):
            self._counts: dict[str, Text] = {}
            for key, words in (("free", "free"), ("taken", "taken"), ("line", "in line")):
                with tag("div"):
                    tag("dt", "", words)
                    self._counts[key] = text("dd", "–", data_testid=f"screen-{key}")
        self._reader = Reader(self._read)

    def show(self, snapshot: Snapshot, changes: ChangeSet | None = None) -> None:
        """Shows the counts now, and the code if it changed."""
        mine = snapshot.count_pool(self._pool.id)
        self._counts["free"].say(str(mine.free))
        self._counts["taken"].say(str(mine.used))
        self._counts["line"].say(str(mine.line))
        self._access = snapshot.pools.get(self._pool.id, self._pool).access
        if changes is None or changes.pools or changes.touches("join_codes", self._pool.id):
            self._reader.ask()

    async def _read(self) -> None:
        is_coded = self._access is Access.CODE and self._visit.admin.role is not Role.VIEWER
        code = await find_code(self._visit.house.db, self._pool.id) if is_coded else None
        address = f"{self._visit.house.settings.public_url}/join/{self._pool.name}"
        target = f"{address}?code={code.code}" if code else address
        has_link = self._access is not Access.ROSTER
        self._asks.say(_ASKS[self._access])
        self._link.say(address.partition("://")[2] if has_link else "")
        self._code_part.set_visibility(code is not None)
        self._code.say(code.code if code else "")
        self._trouble.say(self._describe_trouble(code))
        self._picture.set_visibility(has_link)
        if target != self._shown:
            self._shown = target
            self._picture.clear()
            with self._picture:
                # Dark on light in both themes: many phones read nothing else.
                ui.html(segno.make(target, error="m").svg_inline(light="#fff", border=3, omitsize=True), sanitize=False)

    def _describe_trouble(self, code: JoinCodeView | None) -> str:
        why = code.state(self._visit.house.db.now()) if code else None
        return sentence(f"this join code {why}.") if why else ""
