"""The card of a seat whose machine died: what happened, what becomes of the seat, and of what is on that machine."""

from __future__ import annotations

from datetime import datetime, timedelta

from backend.services.healing_limits import HealingLimits
from backend.services.holders import Holder
from backend.services.rescues import let_machine_go
from backend.services.views import VmView
from backend.states import HOLDING_CLAIM
from lablink_ui.components import Moment
from lablink_ui.components.seat_parts import UntilEnd
from lablink_ui.pages.seat_cards import SeatNow, SeatVisit
from lablink_ui.parts import button, tag, text
from lablink_ui.visits import attempt

_SILENT = "Your machine does not answer, since"
_MOVES = (
    "It may only be cut off, and go on for you. If it stays silent, your seat moves to another machine by "
    "itself, with this page and your key; what is on this one is kept. Until then:"
)
_LEFT = (
    "{former} stopped answering. You keep seat, page and key: {then}. What was on {former} stays there until you give "
    "the seat back, or say that you need nothing from it."
)
_QUESTION = "What is on it is removed for good, and the machine is wiped or destroyed."


class RescueCard:
    """What happened to the machine, and what comes of it."""

    def __init__(self, visit: SeatVisit) -> None:
        self._visit = visit
        self._limits = HealingLimits.of(visit.house.settings.healing)
        self._kept: VmView | None = None
        with tag("section", "card pad", aria_label="What happened") as self._card:
            tag("h2", "", "What happened")
            # Always there, so that a screen reader says at once what comes into it.
            self._said = text("p", "", "note warn", role="status", data_testid="seat-rescue")
            with tag("p", "sub") as self._silent:
                tag("span", "", f"{_SILENT} ")
                self._since = Moment()
                tag("span", "", f". {_MOVES} ")
                self._moves = UntilEnd()
                tag("span", "", ".")
            with tag("div", "row") as self._ask_row:
                tag("p", "sub said", "Do you need something of it? Then ask your organiser. Else say so:")
                button("I need nothing from it", self._ask, classes="small", testid="seat-let-go")
        self._card.set_visibility(False)

    def show(self, now: SeatNow) -> None:
        """Shows it as it is now."""
        self._kept = now.kept
        moves_at = self._find_move(now)
        self._card.set_visibility(bool(self._kept or moves_at))
        self._silent.set_visibility(moves_at is not None)
        self._ask_row.set_visibility(self._kept is not None)
        self._since.show(now.vm.unreachable_since if now.vm and moves_at else None)
        self._moves.show(moves_at)
        self._said.say(_say(self._kept, now) if self._kept else "")

    def _find_move(self, now: SeatNow) -> datetime | None:
        if now.claim.status not in HOLDING_CLAIM or now.vm is None or now.pool is None:
            return None
        grace_s = self._limits.over(now.pool.healing).seat_grace_s
        since = now.vm.unreachable_since
        return since + timedelta(seconds=grace_s) if since and grace_s else None

    async def _ask(self) -> None:
        if not self._kept:
            return
        title = f"Let {self._kept.hostname} go?"
        if await self._visit.frame.ask.ask(title, _QUESTION, verb="Let it go"):
            await attempt(self._let_go)

    async def _let_go(self) -> str:
        visit = self._visit
        await let_machine_go(visit.house.db, visit.claim.id, Holder(visit.owner_hash, address=visit.address))
        return "The former machine may go"


def _say(kept: VmView, now: SeatNow) -> str:
    here = now.claim.hostname
    then = f"it moved to {here}" if here else "you are first in line for the next machine"
    return _LEFT.format(former=kept.hostname, then=then)
