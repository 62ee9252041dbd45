"""The card of Chrome Remote Desktop: three steps from Google's page to a desktop, live."""

from __future__ import annotations

from nicegui import ui

from backend.errors import LabLinkError
from backend.services.crd import get_pin, request_crd
from backend.services.holders import Holder
from backend.services.views import ClaimView
from backend.states import ClaimStatus, CrdStatus
from lablink_ui.components import CopyButton
from lablink_ui.pages.seat_cards import SeatNow, SeatVisit
from lablink_ui.parts import Chip, button, tag, text
from lablink_ui.visits import attempt

_GOOGLE = "https://remotedesktop.google.com/headless"
_WORDS: dict[CrdStatus | None, tuple[str, str]] = {
    None: ("Not set up", "idle"),
    CrdStatus.WAITING: ("On its way", "busy"),
    CrdStatus.STARTING: ("Setting up", "busy"),
    CrdStatus.READY: ("Ready", "good"),
    CrdStatus.FAILED: ("Did not work", "bad"),
}
_UNDERWAY = frozenset({CrdStatus.WAITING, CrdStatus.STARTING})
_GET = (
    "Sign in with your own Google account, then choose Begin, Next and Authorize. Google shows a line of text under "
    "“Debian Linux”: copy it whole. It works once, for a few minutes."
)
_PASTE = "The line that begins with DISPLAY= or /opt/google. It is read, never run: only its code is used."
_BEFORE = "Once you have pasted the line, your machine does the rest, and the way in appears here."
# More than the server takes is not sent whole: it says what is wrong all the same.
_TAKE = "(e) => { e.preventDefault(); emit(e.target.elements['crd-line'].value.slice(0, 5000)); }"


class CrdCard:
    """Shown while the seat is active and its pool offers Chrome Remote Desktop."""

    def __init__(self, visit: SeatVisit) -> None:
        self._visit = visit
        self._holder = Holder(owner_hash=visit.owner_hash, address=visit.address)
        self._status: CrdStatus | None = None
        self._is_drawn = self._is_pin_shown = False
        self._card = tag("section", "card pad", aria_labelledby="crd-title")
        self._card.set_visibility(False)

    def show(self, now: SeatNow) -> None:
        """Shows the seat as it is now."""
        claim = now.claim
        is_on = claim.status is ClaimStatus.ACTIVE and now.pool is not None and now.pool.crd
        self._card.set_visibility(is_on)
        if not is_on:
            if self._is_pin_shown:
                self._hide_pin()
            return
        if not self._is_drawn:
            self._draw()
        status, self._status = self._status, claim.crd_status
        self._show_result(claim)
        self._show_submit(claim.crd_status)
        if claim.crd_status is CrdStatus.FAILED:
            self._error.say(claim.crd_detail or "")
        elif claim.crd_status is not status:
            self._error.say("")

    def _draw(self) -> None:
        # Not before it is wanted: it is a third of the page, and many pools do not offer it.
        self._is_drawn = True
        with self._card:
            tag("h2", "", "Desktop in your browser", id="crd-title")
            tag("p", "sub", "With Chrome Remote Desktop, under your own Google account. It takes about a minute.")
            with tag("ol", "steps"):
                self._draw_open()
                self._draw_paste()
                self._draw_result()

    def _draw_open(self) -> None:
        with tag("li"), tag("div", "stack"):
            tag("h3", "", "Get a line from Google")
            tag("p", "sub", _GET)
            tag(
                "a",
                "button start",
                "Open Google's page",
                href=_GOOGLE,
                target="_blank",
                rel="noopener noreferrer",
                data_testid="crd-open",
            )

    def _draw_paste(self) -> None:
        with tag("li"), tag("form", "stack") as form:
            tag("h3", "", "Paste it here")
            tag("label", "sub", _PASTE, for_="crd-line")
            self._paste = tag(
                "textarea",
                "input",
                id="crd-line",
                name="crd-line",
                rows=4,
                spellcheck="false",
                autocapitalize="off",
                autocomplete="off",
                aria_describedby="crd-error",
                data_testid="crd-paste",
            )
            self._error = text("div", "", "error", data_testid="crd-error", id="crd-error", role="alert")
            self._submit = tag(
                "button", "button primary start", "Set up my desktop", type="submit", data_testid="crd-submit"
            )
        form.on("submit", lambda event: self._take(str(event.args or "")), js_handler=_TAKE)

    def _draw_result(self) -> None:
        with tag("li"), tag("div", "stack"):
            tag("h3", "", "Open your desktop")
            with tag("div", "row", role="status", aria_atomic="true"):
                self._chip = Chip("crd-status")
                self._detail = text("span", "", "sub said", data_testid="crd-detail")
            with tag("div", "row") as self._pin_row:
                tag("span", "", "Your PIN")
                self._pin = text("output", "", "pin", data_testid="crd-pin", aria_label="Your PIN")
                self._copy = CopyButton("Copy")
                self._toggle = button("", self._toggle_pin, classes="small", testid="crd-pin-show")
                with self._toggle:
                    self._toggle_words = text("span", "Show")
            self._link = tag(
                "a",
                "button primary big start",
                "Open my desktop",
                target="_blank",
                rel="noopener noreferrer",
                data_testid="crd-link",
            )
        self._hide_pin()

    def _show_result(self, claim: ClaimView) -> None:
        self._chip.show(claim.crd_status or "none", _WORDS[claim.crd_status])
        is_failed = claim.crd_status is CrdStatus.FAILED
        # The reason stands beside the field, where the next try begins.
        self._detail.say("The reason stands above." if is_failed else claim.crd_detail or _BEFORE)
        self._pin_row.set_visibility(claim.crd_status is not None)
        self._link.set_visibility(claim.crd_link is not None)
        if claim.crd_link is not None and self._link.props.get("href") != claim.crd_link:
            self._link.props["href"] = claim.crd_link
            self._link.update()

    def _show_submit(self, status: CrdStatus | None) -> None:
        # One button of a page is the next thing to do: once there is a desktop, this is no longer it.
        is_next, is_underway = status is not CrdStatus.READY, status in _UNDERWAY
        self._submit.classes(add="primary" if is_next else None, remove=None if is_next else "primary")
        if bool(self._submit.props.get("disabled")) != is_underway:
            self._submit.props["disabled"] = is_underway
            self._submit.update()

    async def _take(self, paste: str) -> None:
        """Takes a paste; what is wrong with it is said beside the field, which keeps it then."""
        visit = self._visit
        try:
            await request_crd(visit.house.db, visit.house.keys, visit.claim.id, paste, self._holder)
        except LabLinkError as exc:
            self._error.say(exc.message)
            return
        self._error.say("")
        ui.run_javascript(f"getElement({self._paste.id}).value = ''")

    async def _toggle_pin(self) -> None:
        if self._is_pin_shown:
            self._hide_pin()
        else:
            await attempt(self._show_pin)

    async def _show_pin(self) -> None:
        visit = self._visit
        # Asked for anew each time: the page may be held open by whoever was signed out of the seat.
        pin = await get_pin(visit.house.db, visit.house.keys, visit.claim.id, self._holder)
        self._pin.say(pin)
        self._copy.hold(pin)
        self._show_toggle(is_shown=True)

    def _hide_pin(self) -> None:
        self._pin.say("")
        self._copy.hold("")
        self._show_toggle(is_shown=False)

    def _show_toggle(self, *, is_shown: bool) -> None:
        self._is_pin_shown = is_shown
        for element in (self._pin, self._copy):
            element.set_visibility(is_shown)
        self._toggle_words.say("Hide" if is_shown else "Show")
