"""The card for another machine: the same seat, link and key, when the one at hand gives trouble."""

from __future__ import annotations

from backend.services.holders import Holder
from backend.services.seat_moves import request_move
from backend.states import HOLDING_CLAIM
from lablink_ui.pages.seat_cards import SeatNow, SeatVisit
from lablink_ui.parts import button, tag
from lablink_ui.visits import attempt

# Whatever tells of trouble leads here.
MOVE_ID = "another-machine"
_WARNING = (
    "You get the next free machine, with the same seat and key. What is on the present one is removed: save it first."
)


class MoveCard:
    """A way to another machine."""

    def __init__(self, visit: SeatVisit) -> None:
        self._visit = visit
        with tag("section", "card pad", aria_label="Another machine", id=MOVE_ID) as self._card:
            tag("h2", "", "Trouble with this machine?")
            with tag("div", "row"):
                tag("p", "sub said", "You can move to another one, if one is free.")
                button("Move to another machine", self._ask, classes="small", testid="seat-move")
        self._card.set_visibility(False)

    def show(self, now: SeatNow) -> None:
        """Only who has a machine can leave it for another."""
        self._card.set_visibility(now.claim.status in HOLDING_CLAIM)

    async def _ask(self) -> None:
        if await self._visit.frame.ask.ask("Move to another machine?", _WARNING, verb="Move"):
            await attempt(self._move)

    async def _move(self) -> str:
        visit = self._visit
        holder = Holder(owner_hash=visit.owner_hash, address=visit.address)
        moved = await request_move(visit.house.db, visit.claim.id, holder)
        return f"You moved to {moved.hostname}"
