"""The seat: the researcher's own machine, or the place in line, live."""

from __future__ import annotations

import time

from fastapi import Request

from backend.api.auth import get_address, get_house
from backend.house import House
from backend.live.changes import ChangeSet, Snapshot
from backend.services.claims import get_position, list_claims, release_own_claim
from backend.services.views import ClaimView, PoolView, VmView
from backend.states import HOLDING_CLAIM, OPEN_CLAIM, ClaimStatus, Health
from lablink_ui.frame import Frame, page_at, public_frame
from lablink_ui.pages.seat_cards import SeatNow, SeatVisit
from lablink_ui.pages.seat_move import MOVE_ID
from lablink_ui.pages.seat_opening import draw_key_form
from lablink_ui.pages.seat_order import CARDS
from lablink_ui.parts import Chip, Facts, button, link_button, tag, text
from lablink_ui.visits import Reader, attempt, follow
from lablink_ui.words import CLAIM_WORDS, people, sentence

_SENTENCES = {
    ClaimStatus.WAITING: "You are in line. Keep this page open or come back later: you are let in by itself.",
    ClaimStatus.PREPARING: "Your machine is being made ready. This takes a few seconds.",
    ClaimStatus.ACTIVE: "Your machine is ready. Close this page and come back any time: it stays yours.",
    ClaimStatus.RELEASED: "This seat was given back.",
    ClaimStatus.FAILED: "Your seat has ended.",
    ClaimStatus.EXPIRED: "Your seat has ended: its time is over.",
}
_NO_SEAT = "This browser holds no seat. Open yours with its seat key, or get one with a join code."
_SIGNED_OUT = "This browser was signed out of the seat. With the seat key you open it again."
_UNWELL = "Something is wrong with this machine. Save your work elsewhere; then you can "
_MOVE = "move to another machine"
_GIVE_BACK = "Your session and everything in it is removed from the machine, and somebody else gets it."
# Some of what it shows changes with the time alone.
LOOK_EVERY_S = 5.0


@page_at("/seat")
async def seat(request: Request) -> None:
    """The seat of this browser; of several, the latest."""
    house, owner_hash = get_house(request), request.state.owner_hash
    claims = await list_claims(house.db, owner_hash=owner_hash)
    if not claims:
        await _say_none(house, was_signed_out="signed-out" in request.query_params)
        return
    claim = next((each for each in claims if each.status in OPEN_CLAIM), claims[0])
    position = await get_position(house.db, claim.id)
    with public_frame("Your seat", wide=True) as frame:
        page = _SeatPage(SeatVisit(house, frame, claim, owner_hash, get_address(request)), position)
        await follow(house, frame, start=page.show, on_changes=page.show)


async def _say_none(house: House, *, was_signed_out: bool) -> None:
    with public_frame("Signed out" if was_signed_out else "No seat here yet") as frame:
        frame.subtitle.say(_SIGNED_OUT if was_signed_out else _NO_SEAT)
        draw_key_form()
        link_button("Enter a join code", "/", classes="big")
        await follow(house, frame)


class _SeatPage:
    """The seat's own card and those of its sides; what they show, and how it is given back."""

    def __init__(self, visit: SeatVisit, position: int | None) -> None:
        self._visit, self._claim = visit, visit.claim
        self._top = _ClaimCard(visit.frame, visit.claim)
        self._cards = [draw(visit) for draw in CARDS]
        self._top.give_back.on("click", lambda _: self._ask())
        self._reader = Reader(self._read)
        self._is_over = False
        self._seen: tuple[object, ...] = ()
        self._seen_at = 0.0
        self._top.show(visit.claim, position, None, visit.house.live.snapshot.pools.get(visit.claim.pool_id))

    def show(self, snapshot: Snapshot, changes: ChangeSet | None = None) -> None:
        """Shows the seat as it is now; one that has ended stands in no snapshot."""
        claim = snapshot.claims.get(self._claim.id)
        if claim is None:
            if not self._is_over:
                self._reader.ask()
            return
        pool, vm = snapshot.pools.get(claim.pool_id), snapshot.vms.get(claim.vm_id or 0)
        now = SeatNow(claim, pool, vm, snapshot.map_kept().get(claim.id), changes)
        position = snapshot.positions.get(claim.id)
        if self._is_news(now, position):
            self._show(now, position)

    def _is_news(self, now: SeatNow, position: int | None) -> bool:
        """Whether the page may have to show something else: in a full hall hardly any change is about this seat."""
        seen, at, changes = (now.claim, now.pool, now.vm, now.kept, position), time.monotonic(), now.changes
        is_told = changes is None or changes.is_whole or any(now.claim.id in each for each in changes.touched.values())
        if not is_told and seen == self._seen and at - self._seen_at < LOOK_EVERY_S:
            return False
        self._seen, self._seen_at = seen, at
        return True

    def _show(self, now: SeatNow, position: int | None) -> None:
        self._claim = now.claim
        self._top.show(now.claim, position, now.vm, now.pool)
        for card in self._cards:
            card.show(now)

    async def _read(self) -> None:
        house = self._visit.house
        found = await list_claims(house.db, ids=[self._claim.id])
        # What a rehearsal simulated goes without a trace, even under an open page.
        for claim in found:
            self._show(SeatNow(claim, house.live.snapshot.pools.get(claim.pool_id), None), None)
        self._is_over = all(claim.status not in OPEN_CLAIM for claim in found)

    async def _ask(self) -> None:
        title, words, verb = "Give back your seat?", _GIVE_BACK, "Give it back"
        if self._claim.status is ClaimStatus.WAITING:
            title, words, verb = "Leave the line?", "You lose your place in it.", "Leave the line"
        if await self._visit.frame.ask.ask(title, words, verb=verb):
            await attempt(self._release)

    async def _release(self) -> str:
        visit = self._visit
        await release_own_claim(visit.house.db, self._claim.id, owner_hash=visit.owner_hash, address=visit.address)
        return _SENTENCES[ClaimStatus.RELEASED]


class _ClaimCard:
    """What the page shows of a claim."""

    def __init__(self, frame: Frame, claim: ClaimView) -> None:
        self._frame = frame
        with tag("div", "card pad"):
            with tag("div", "row", role="status"):
                self._hostname = text("h2", "", data_testid="seat-hostname")
                self._status = Chip("seat-status")
            # Told whole at every change: a bare number says nothing to who cannot see the words beside it.
            with tag("div", "stack", role="status", aria_atomic="true") as self._line:
                tag("span", "sub", "Your place in line")
                self._position = text("div", "", "position", data_testid="seat-position")
                self._ahead = text("span", "", "sub")
            with tag("div", "stack") as self._machine:
                self._facts = Facts(
                    {"pool": "Workshop", "email": "As", "health": "Machine", "beat": "Last heard of"}, moments=("beat",)
                )
                self._connect = button(
                    "Connect",
                    classes="primary big",
                    testid="seat-connect",
                    disabled=True,
                    aria_describedby="no-connection",
                )
                # The cards of the connections know what to do.
                self._connect.on("click", js_handler="() => window.lablinkConnect()")
                self._no_connection = tag(
                    "p",
                    "note",
                    "No connection is configured for this workshop yet. Your organiser knows how to reach the machine.",
                    id="no-connection",
                )
            # Always there, so that a screen reader says at once what comes into it.
            with tag("p", "note warn", role="status", data_testid="seat-unwell") as self._unwell:
                self._unwell_words = text("span")
                tag("a", "", _MOVE, href=f"#{MOVE_ID}")
                tag("span", "", ".")
            self._reason = text("p", "", "sub")
            with tag("div", "row"):
                self.give_back = button("", classes="danger", testid="seat-release")
                with self.give_back:
                    self._give_back_words = text("span", "Give it back")
                self._again = link_button("Get another seat", f"/join/{claim.pool}", classes="primary")

    def show(self, claim: ClaimView, position: int | None, vm: VmView | None, pool: PoolView | None) -> None:
        """Shows the claim as it is now."""
        self._show_connect(claim, pool)
        is_open, is_waiting = claim.status in OPEN_CLAIM, claim.status is ClaimStatus.WAITING
        self._frame.subtitle.say(_SENTENCES[claim.status])
        self._hostname.say(claim.hostname or claim.pool)
        self._status.show(claim.status, CLAIM_WORDS[claim.status])
        self._position.say(str(position) if position else "")
        self._ahead.say(_ahead(position))
        self._give_back_words.say("Leave the line" if is_waiting else "Give it back")
        self._line.set_visibility(is_waiting)
        self._machine.set_visibility(is_open and not is_waiting)
        self._reason.say("" if is_open else sentence(claim.reason or ""))
        self.give_back.set_visibility(is_open)
        self._again.set_visibility(not is_open)
        self._show_unwell(claim, vm)
        beat = vm.last_heartbeat_at if vm else None
        self._facts.show(pool=claim.pool, email=claim.email, health=_health(vm), beat=beat)

    def _show_unwell(self, claim: ClaimView, vm: VmView | None) -> None:
        """Of a machine that is silent, or that the cloud takes away, a card of its own says more."""
        is_silent = vm is None or vm.unreachable_since is not None or vm.interruption_at is not None
        is_unwell = vm is not None and vm.health is Health.UNHEALTHY and not is_silent
        is_shown = is_unwell and claim.status in HOLDING_CLAIM
        self._unwell.set_visibility(is_shown)
        self._unwell_words.say(_UNWELL if is_shown else "")

    def _show_connect(self, claim: ClaimView, pool: PoolView | None) -> None:
        has_connection = pool is not None and (pool.terminal or pool.crd or pool.url_template is not None)
        self._no_connection.set_visibility(not has_connection)
        is_ready = claim.status is ClaimStatus.ACTIVE and has_connection
        if is_ready == bool(self._connect.props.get("disabled", False)):
            self._connect.props["disabled"] = not is_ready
            self._connect.update()


def _ahead(position: int | None) -> str:
    if position is None:
        return ""
    return "You are next." if position == 1 else f"{people(position - 1)} before you."


def _health(vm: VmView | None) -> str | None:
    if vm is None:
        return None
    if vm.unreachable_since:
        return "does not answer right now; your organiser can see it"
    if vm.health is Health.HEALTHY:
        return "healthy"
    return f"{vm.health or 'starting'}{': ' + '; '.join(vm.reasons) if vm.reasons else ''}"
