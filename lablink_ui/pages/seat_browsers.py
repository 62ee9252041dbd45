"""The card of browsers: where the seat is open, and the end of it elsewhere, or here."""

from __future__ import annotations

from functools import partial

from nicegui import ui

from backend.services.holders import Holder
from backend.services.seat_browsers import BrowserView, list_browsers
from backend.services.seat_sign_outs import sign_out_browser, sign_out_others
from backend.states import OPEN_CLAIM
from lablink_ui.components import Moment
from lablink_ui.pages.seat_cards import SeatNow, SeatVisit
from lablink_ui.parts import button, tag
from lablink_ui.visits import Reader, attempt
from lablink_ui.words import count

_LEAVE = "To come back here or elsewhere you need your seat key. The seat stays yours."
# The first that matches counts: every browser also names those it descends from.
_BROWSERS = (("Edg", "Edge"), ("OPR", "Opera"), ("Firefox", "Firefox"), ("Chrom", "Chrome"), ("Safari", "Safari"))
_SYSTEMS = (
    ("Android", "Android"),
    (r"iPhone|iPad", "iOS"),
    ("Windows", "Windows"),
    ("Mac", "macOS"),
    ("Linux", "Linux"),
)


class BrowsersCard:
    """Where the seat is open."""

    def __init__(self, visit: SeatVisit) -> None:
        self._visit = visit
        self._seen: dict[int, Moment] = {}
        self._is_open = True
        with tag("section", "card pad", aria_label="Where this seat is open") as self._card:
            tag("h2", "", "Where this seat is open")
            self._list = tag("ul", "browsers", data_testid="seat-browsers")
            self._others = button(
                "Sign out all others",
                lambda: attempt(self._sign_out_others),
                classes="small start",
                testid="seat-sign-out-others",
            )
        self._card.set_visibility(False)
        self._reader = Reader(self._read)

    def show(self, now: SeatNow) -> None:
        """Reads again where it is open, if that changed."""
        self._is_open = now.claim.status in OPEN_CLAIM
        self._card.set_visibility(self._is_open)
        if now.changes is None or now.changes.touches("seat_browsers", self._visit.claim.id):
            self._reader.ask()

    async def _read(self) -> None:
        visit = self._visit
        browsers = await list_browsers(visit.house.db, visit.claim.id, owner_hash=visit.owner_hash)
        if not any(each.is_this for each in browsers):
            # Signed out from elsewhere, or here: nothing on this page is this browser's any more.
            ui.navigate.to("/seat?signed-out")
            return
        if self._seen.keys() != {each.id for each in browsers}:
            self._draw(browsers)
        for each in browsers:
            self._seen[each.id].show(each.last_seen_at)
        self._others.set_visibility(len(browsers) > 1)

    def _draw(self, browsers: list[BrowserView]) -> None:
        self._seen.clear()
        self._list.clear()
        with self._list:
            for each in browsers:
                with tag("li", "row"):
                    with tag("span", "said"):
                        tag("span", "strong", describe_browser(each.user_agent))
                        tag("span", "sub", f" · {each.address or 'address unknown'} · seen ")
                        self._seen[each.id] = Moment()
                    if each.is_this:
                        tag("span", "chip info", "This browser")
                    whose = "this" if each.is_this else each.id
                    out = button("Sign out", classes="small", testid=f"seat-sign-out-{whose}")
                    out.on("click", partial(self._sign_out, each), args=[])

    async def _sign_out(self, browser: BrowserView) -> None:
        visit = self._visit
        if browser.is_this and not await visit.frame.ask.ask("Sign this browser out?", _LEAVE, verb="Sign out"):
            return
        await attempt(lambda: self._do_sign_out(browser.id))

    async def _do_sign_out(self, browser_id: int) -> str:
        await sign_out_browser(self._visit.house.db, self._visit.claim.id, browser_id, self._holder)
        return "Signed out"

    async def _sign_out_others(self) -> str:
        number = await sign_out_others(self._visit.house.db, self._visit.claim.id, self._holder)
        return f"{count(number, 'browser')} signed out"

    @property
    def _holder(self) -> Holder:
        return Holder(owner_hash=self._visit.owner_hash, address=self._visit.address)


def describe_browser(user_agent: str | None) -> str:
    """``Firefox on Linux``."""
    agent = user_agent or ""
    browser = next((name for mark, name in _BROWSERS if mark in agent), "A browser")
    system = next((name for mark, name in _SYSTEMS if mark in agent), None)
    return f"{browser} on {system}" if system else browser
