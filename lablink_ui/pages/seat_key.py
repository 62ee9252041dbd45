"""The card of the seat key: shown once after the claim, made anew on demand."""

from __future__ import annotations

from backend.services.holders import Holder
from backend.services.seat_keys import renew_own_key
from backend.states import OPEN_CLAIM
from lablink_ui.components.seat_parts import KeyOnce
from lablink_ui.pages.seat_cards import SeatNow, SeatVisit
from lablink_ui.visits import attempt

_WORDS = "It was shown when you claimed, and opens this seat in another browser. Lost it? A new one ends the old one."


class KeyCard:
    """The seat's key."""

    def __init__(self, visit: SeatVisit) -> None:
        self._visit = visit
        self._card = KeyOnce(
            _WORDS, verb="Make a new key", testid="seat-new-key", on_renew=lambda: attempt(self._renew), is_fresh=True
        )
        self._card.set_visibility(False)

    def show(self, now: SeatNow) -> None:
        """A seat that has ended has no key."""
        self._card.set_visibility(now.claim.status in OPEN_CLAIM)

    async def _renew(self) -> None:
        visit = self._visit
        holder = Holder(owner_hash=visit.owner_hash, address=visit.address)
        self._card.show(await renew_own_key(visit.house.db, visit.claim.id, holder))
