"""What Terraform knows of a pool: its state and backups to download, what disagrees with it, and a new start."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response
from nicegui import ui

from backend.api.upkeep import make_state_file
from backend.errors import Forbidden
from backend.live.changes import ChangeSet, Snapshot
from backend.services.findings import list_findings
from backend.services.operations import request_rebuild
from backend.services.views import PoolView
from lablink_ui.components import Moment
from lablink_ui.frame import Frame, admin_frame, page_at
from lablink_ui.mends import draw_mend
from lablink_ui.pages.pool_found import find_pool
from lablink_ui.parts import button, link_button, tag
from lablink_ui.visits import Reader, Visit, attempt, find_visit, to_login
from lablink_ui.words import count

router = APIRouter(include_in_schema=False)
_SAYS = (
    "Treat a state as a secret: it holds whatever Terraform knew of these machines. Every download is in the "
    "events, with your name."
)


@page_at("/admin/pools/{name}/state")
async def pool_state(request: Request, name: str) -> Response | None:
    """The page."""
    visit = await find_visit(request)
    if visit is None:
        return to_login(request)
    pool = await find_pool(visit, name)
    if pool is None:
        return None
    subtitle = "What Terraform knows of this pool's machines"
    with admin_frame(f"State of {name}", active="pools", user=visit.admin.name, subtitle=subtitle) as frame:
        with frame.buttons:
            link_button("Back to the pool", f"/admin/pools/{name}")
        await _Page(visit, pool).follow(frame)
    return None


@router.get("/admin/pools/{name}/state/{file}")
async def download(request: Request, name: str, file: str) -> Response:
    """One state, for an admin who is signed in: by plain HTTP, so that the browser saves it."""
    visit = await find_visit(request)
    if visit is None:
        return to_login(request)
    return await make_state_file(visit.house, name, file, actor=visit.admin.actor(visit.address))


class _Page:
    def __init__(self, visit: Visit, pool: PoolView) -> None:
        self._visit, self._pool, self._house = visit, pool, visit.house
        with tag("div", "grid2"):
            with tag("section", "card pad", aria_label="What disagrees"):
                tag("h2", "", "What disagrees")
                self._findings = tag("div")
                if visit.may_operate:
                    button("Look now", self._look, classes="small start", testid="state-look")
            with tag("section", "card pad", aria_label="Downloads"):
                tag("h2", "", "State and backups")
                tag("p", "note warn", _SAYS)
                self._files = tag("div")
                if visit.may_operate:
                    button("Rebuild the state", self._rebuild, classes="small start", testid="state-rebuild")
        self._reader = Reader(self._read)

    async def follow(self, frame: Frame) -> None:
        """Keeps it true while the page is open."""
        self._frame = frame

        def change(_: Snapshot, changes: ChangeSet) -> None:
            if changes.operations or changes.touches("findings"):
                self._reader.ask()

        await self._visit.follow(frame, start=lambda _: self._reader.ask(), on_changes=change)

    async def _look(self) -> None:
        async def look() -> str:
            await self._visit.actor()
            await self._house.reconciler.look()
            return "Looked: this is how it stands now"

        await attempt(look)

    async def _rebuild(self) -> None:
        async def rebuild() -> str:
            operation = await request_rebuild(self._house.db, self._pool.name, actor=await self._visit.actor())
            ui.navigate.to(f"/admin/operations/{operation.id}")
            return "Rebuild asked for"

        words = "An operation makes Terraform's state say what exists. No machine is touched."
        if await self._frame.ask.ask("Rebuild the state?", words, verb="Rebuild state", danger=False):
            await attempt(rebuild)

    async def _read(self) -> None:
        findings = [each for each in await list_findings(self._house.db) if each.pool_id == self._pool.id]
        self._findings.clear()
        with self._findings:
            if not findings:
                tag("p", "sub", "Nothing: database, state and machines agree, as of the last look.")
            for each in findings:
                with tag("div", "attention"):
                    tag("p", "lines", each.sentence)
                    draw_mend(self._visit, self._frame, each)
        await self._draw_files()

    async def _draw_files(self) -> None:
        provider = self._house.providers.get(self._pool.provider)
        files = await provider.facts.list_states(self._pool) if provider else []
        self._files.clear()
        with self._files:
            if not files:
                tag("p", "sub", "There is no state yet: nothing was launched.")
            for each in files:
                with tag("div", "attention"):
                    with tag("p", "lines"):
                        tag("span", "", "The state now" if each.is_current else each.name)
                        with tag("span", "sub"):
                            tag("span", "", f"{count(each.size, 'byte')}, ")
                            Moment().show(each.at)
                    if self._visit.may_administer:
                        href = f"/admin/pools/{self._pool.name}/state/{each.name}"
                        tag("a", "button small push", "Download", href=href, download=True)
        if not self._visit.may_administer:
            with self._files:
                tag("p", "note", str(Forbidden("Admins alone may download states.").message))
