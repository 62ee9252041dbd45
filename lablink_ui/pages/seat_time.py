"""The card of a seat's time: how long it lasts, the warning before it ends, and the click that keeps it."""

from __future__ import annotations

from backend.services.claim_times import STAY_S, EndKind, SeatEnd, extend_claim, find_end, touch_claim
from backend.services.holders import Holder
from backend.services.seat_browsers import record_seen
from backend.services.views import PoolView
from lablink_ui.components.seat_parts import UntilEnd, UseWatch
from lablink_ui.pages.seat_cards import SeatNow, SeatVisit
from lablink_ui.parts import button, tag, text
from lablink_ui.visits import attempt
from lablink_ui.words import span

_WARNINGS = {
    EndKind.TIME: "Your time is nearly over. At the end, what is on the machine is removed. Stay, or save your work.",
    EndKind.IDLE: "Nobody has used your seat for a while. It ends soon, and what is on the machine is removed then.",
    EndKind.CLASS: "The class ends soon. At the end, what is on the machine is removed. Stay, or save your work.",
}
_LAST_WARNING = "Only minutes are left: at the end, what is on the machine is removed. Stay, or save your work now."


class TimeCard:
    """The time left."""

    def __init__(self, visit: SeatVisit) -> None:
        self._visit = visit
        UseWatch(self._use)
        with tag("section", "card pad", aria_label="Time left") as self._card:
            with tag("p", "", data_testid="seat-time"):
                self._before = text("span")
                self._left = UntilEnd()
                self._after = text("span")
            # Always there, so that a screen reader says at once what comes into it; the countdown it does not say.
            self._warning = text("p", "", "note warn", role="alert", data_testid="seat-warning")
            with button("", lambda: attempt(self._stay), testid="seat-extend", classes="start") as self._button:
                self._verb = text("span")
        self._card.set_visibility(False)

    def show(self, now: SeatNow) -> None:
        """Shows the time left now."""
        end = find_end(now.claim, now.pool) if now.pool else None
        self._card.set_visibility(end is not None)
        if end is None or now.pool is None:
            self._warning.say("")
            return
        at = self._visit.house.db.now()
        is_warned, is_last = at >= end.warns_at, end.warns_again_at <= at < end.at
        self._before.say("Your seat ends by itself in ")
        self._left.show(end.at)
        self._after.say(", unless it is used." if end.kind is EndKind.IDLE else ".")
        warning = _LAST_WARNING if is_last else _WARNINGS[end.kind]
        self._warning.say(warning if is_warned else "")
        self._verb.say(_verb(end, now.pool))
        self._button.set_visibility(is_warned or end.kind is not EndKind.IDLE)
        self._button.classes(**{"add" if is_warned else "remove": "primary"})

    async def _stay(self) -> str:
        visit = self._visit
        holder = Holder(owner_hash=visit.owner_hash, address=visit.address)
        await extend_claim(visit.house.db, visit.claim.id, holder)
        return "You stay"

    async def _use(self) -> None:
        visit = self._visit
        await touch_claim(visit.house.db, visit.claim.id, owner_hash=visit.owner_hash)
        await record_seen(visit.house.db, visit.claim.id, visit.owner_hash)


def _verb(end: SeatEnd, pool: PoolView) -> str:
    if end.kind is EndKind.CLASS:
        return f"Stay {span(STAY_S)} from now"
    if end.kind is EndKind.IDLE or pool.claim_duration_s is None:
        return "I am still here"
    return f"Stay {span(pool.claim_duration_s)} from now"
